"""results/report.md: the arms' tables, learning curves, three traces, provenance.

Whatever a model wrote is shown as text and nothing else: in a fence longer than any run of backticks in it, with
control and direction marks spelled out, cut at a length that a page can bear.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from showwork.report import gains
from showwork.report.seed_table import NOTE, SeedTable
from showwork.report.tables import (
    ACCURACY,
    FORM_AND_COST,
    detectors,
    display,
    groups,
    interval,
    p_value,
    percent,
    points,
    shifted,
    taught,
)

TEXT_LIMIT = 4000

SHIFTED = "`shifted`: questions of kinds that training never holds, all of them and kind by kind; `change`: points."
DETECTORS = (
    "`rate`: share of the completions in which a detector fires, right or wrong. `auroc`: chance that a wrong "
    "completion scores above a right one, equal scores counting one half; 0.5 is a coin."
)


def render(
    *,
    table: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    curves: str | None,
    params: Mapping[str, Any],
    versions: Mapping[str, str],
    questions: Mapping[str, str] | None = None,
    gained: Sequence[Mapping[str, str]] = (),
    seeds: SeedTable | None = None,
) -> str:
    """The report as Markdown.

    table is `arm_table`'s; metrics and predictions go by arm, in its order; curves is the picture's path from the
    report, or None; questions maps ids to the text of a question, where a trace should show it. gained is
    `gains.rows`; seeds is the table of results/seeds.csv, where there is one.
    """
    cells = display(table)
    parts = [
        "# What training changed",
        summary(table),
        "## The arms",
        markdown_table(ACCURACY, cells),
        "`change` compares an arm with the one it started from on the same questions: percentage points, 95% paired "
        "bootstrap interval, exact McNemar p (two-sided, of this comparison alone). A verdict needs an interval "
        "without 0 and p < 0.05; anything else is called no difference. "
        "Accuracy is greedy, with its 95% Wilson interval.",
        *second_test_set(metrics),
        markdown_table(FORM_AND_COST, cells),
        "`faithful`: right answer, every equation in the work true, and the last result is the answer. "
        "`sampled accuracy`: the mean over (questions × samples each) at temperature 1. Tokens trained and sampled, "
        "and minutes, are those of the arm's own stage.",
        *over_seeds(seeds),
        *where_gains_come_from(gained),
        "## Accuracy by number of steps and by operation",
        markdown_table(("steps", "n", *metrics), groups(metrics, "steps")),
        markdown_table(("operation", "n", *metrics), groups(metrics, "op")),
        "Steps and operations are those of the question's own solution; it counts under every operation that it uses.",
    ]
    if signals := detectors(metrics):
        parts += ["## Detectors", markdown_table(list(signals[0]), signals), DETECTORS]
    parts += ["## What the arms were taught", "\n".join(f"- {cell(line)}" for line in taught(params))]
    if curves:
        parts += ["## Learning curves", f"![Learning curves of the trained arms]({curves})"]
    parts += ["## Three traces", *traces(table, predictions, questions or {}), "## Provenance"]
    parts += [fence("\n".join(f"{key}: {json.dumps(value)}" for key, value in flatten(params)), "yaml")]
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    return "\n\n".join(parts) + "\n"


def summary(table: pd.DataFrame) -> str:
    """One line: every arm's accuracy and what became of its start's."""
    n = int(table["n"].iloc[0])
    said = []
    for row in table.to_dict("records"):
        text = f"{cell(row['arm'])} {percent(row['accuracy'])}"
        if not pd.isna(row["difference"]):
            change = "no difference from" if row["verdict"] == "no difference" else f"{row['verdict']} than"
            flips = f"{row['gained']:,.0f} gained, {row['lost']:,.0f} lost"
            numbers = f"{points(row['difference'])} points, {interval(row)}, p {p_value(row['p'])}, {flips}"
            text += f" ({change} {cell(row['start'])}: {numbers})"
        said.append(text)
    return f"Right answers to {n:,} test questions: " + "; ".join(said) + "."


def second_test_set(metrics: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    rows = shifted(metrics)
    if rows:
        yield markdown_table(list(rows[0]), rows)
        yield SHIFTED


def where_gains_come_from(gained: Sequence[Mapping[str, str]]) -> Iterable[str]:
    if gained:
        yield "## What the gains are made of"
        yield markdown_table(list(gained[0]), gained)
        yield gains.NOTE


def over_seeds(seeds: SeedTable | None) -> Iterable[str]:
    if seeds:
        yield "## The arms over several seeds"
        yield seeds.said
        yield markdown_table(list(seeds.rows[0]), seeds.rows)
        yield NOTE


def traces(
    table: pd.DataFrame, predictions: Mapping[str, Sequence[Mapping[str, Any]]], questions: Mapping[str, str]
) -> Iterable[str]:
    """The first question that the last arm gained over its start, lost, and that both got wrong, in test order."""
    last = table.iloc[-1]
    arm, start = last["arm"], last["start"]
    if pd.isna(start):
        yield "No arm was trained."
        return
    before = [bool(row["correct"]) for row in predictions[start]]
    after = [bool(row["correct"]) for row in predictions[arm]]
    kinds = {
        f"Gained: {cell(arm)} is right, {cell(start)} was wrong": (False, True),
        f"Lost: {cell(arm)} is wrong, {cell(start)} was right": (True, False),
        "Both wrong": (False, False),
    }
    yield "In each group, the first question in the order of the test set, not a chosen one."
    outcomes = list(zip(before, after, strict=True))
    for title, outcome in kinds.items():
        yield f"### {title} ({outcomes.count(outcome):,} of {len(outcomes):,} questions)"
        if outcome not in outcomes:
            yield "No such question."
            continue
        index = outcomes.index(outcome)
        first = predictions[arm][index]
        yield f"Question {code(first['id'])}, right answer {code(first['gold'])}."
        if first["id"] in questions:
            yield fence(questions[first["id"]])
        for name in (start, arm):
            yield from trace(name, predictions[name][index])


def trace(arm: str, prediction: Mapping[str, Any]) -> Iterable[str]:
    """One completion, its outcome above it and its equations below."""
    answer = "no answer" if prediction["answer"] is None else f"answer {code(prediction['answer'])}"
    mark = "✓ right" if prediction["correct"] else "✗ wrong"
    cut = ", truncated" if prediction["truncated"] else ""
    yield f"**{cell(arm)}**: {mark}, {answer}, {prediction['tokens']:,} tokens{cut}"
    yield fence(prediction["completion"])
    marks = [
        f"{'✓' if equation['holds'] else '✗'} {code(equation['expression'] + ' = ' + equation['value'])}"
        for equation in prediction["equations"]
    ]
    yield "Equations: " + (" · ".join(marks) if marks else "none") + "."


def visible(text: str) -> str:
    """The text with control, format and surrogate characters spelled out, cut after TEXT_LIMIT characters.

    Five empty lines or more become one that counts them: an untrained model can say nothing else.
    """
    shown = "".join(
        f"\\u{ord(c):04x}" if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text[:TEXT_LIMIT]
    )
    shown = re.sub(r"(?:\n[ \t]*){6,}", lambda blank: f"\n… {blank[0].count(chr(10)) - 1} empty lines\n", shown)
    return shown + (f"\n… {len(text) - TEXT_LIMIT:,} more characters" if len(text) > TEXT_LIMIT else "")


def fence(text: str, language: str = "text") -> str:
    """A fenced block that nothing in the text can close."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{visible(text)}\n{ticks}"


def code(text: str) -> str:
    """An inline code span of one line."""
    text = " ".join(visible(text).split())
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def cell(text: Any) -> str:
    """Text as it stands, in one table cell: Markdown's and HTML's marks escaped."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~$])", r"\\\1", " ".join(visible(str(text)).split()))


def markdown_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The first column left, the rest right."""
    lines = [[cell(column) for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[cell(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values, as `dvc params diff` names them."""
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
