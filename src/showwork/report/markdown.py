"""results/report.md: the arms' tables, learning curves, three traces, provenance.

Model output is shown as text only: in a fence longer than any run of backticks in it, with control and direction
characters escaped, and cut to a maximum length.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from showwork.arms import flatten
from showwork.evaluation.predictions import Prediction
from showwork.evaluation.scoring import Metrics
from showwork.formatting import cell, code, fenced_in_report, p_value, percent, points, report_table
from showwork.report import gains, test_sets
from showwork.report.results import Results
from showwork.report.seed_table import NOTE, SeedTable
from showwork.report.tables import ACCURACY, FORM_AND_COST, Row, detectors, display, groups, interval

CURVES = "curves.svg"  # beside the report
ARMS = (
    "`change` compares an arm with the one it started from on the same questions: percentage points, 95% paired "
    "bootstrap interval, exact McNemar p (two-sided, of this comparison alone). A verdict needs an interval "
    "without 0 and p < 0.05; anything else is called no difference. "
    "Accuracy is greedy, with its 95% Wilson interval."
)
FORM = (
    "`flexible`: the last number of the completion is right, whatever its form, as lm-evaluation-harness counts. "
    "`faithful`: right answer, every equation in the work true, and the last result is the answer. "
    "`sampled accuracy`: the mean over (questions × samples each) at temperature 1. Tokens trained and sampled, "
    "and minutes, are those of the arm's own stage."
)
GROUPS = "Steps and operations are those of the question's own solution; it counts under every operation that it uses."
DETECTORS = (
    "`rate`: share of the completions in which a detector fires, right or wrong. `auroc`: chance that a wrong "
    "completion scores above a right one, equal scores counting one half; 0.5 is a coin."
)


def render(results: Results) -> str:
    """The report as Markdown; it links to the picture CURVES if an arm has a curve."""
    cells, metrics = display(results.table), results.metrics
    parts = [
        "# What training changed",
        summary(results.table),
        "## The arms",
        report_table(ACCURACY, cells),
        ARMS,
        *second_test_set(metrics, results.params),
        report_table(FORM_AND_COST, cells),
        FORM,
        *after_examples(metrics),
        *over_seeds(results.seeds),
        *where_gains_come_from(results.gained),
        "## Accuracy by number of steps and by operation",
        report_table(("steps", "n", *metrics), groups(metrics, "steps")),
        report_table(("operation", "n", *metrics), groups(metrics, "op")),
        GROUPS,
    ]
    if signals := detectors(metrics):
        parts += ["## Detectors", _whole_table(signals), DETECTORS]
    parts += ["## What the arms were taught", "\n".join(f"- {cell(line)}" for line in results.taught)]
    if results.has_curves:
        parts += ["## Learning curves", f"![Learning curves of the trained arms]({CURVES})"]
    parts += ["## Three traces", *traces(results.table, results.predictions), "## Provenance"]
    params = "\n".join(f"{key}: {json.dumps(value)}" for key, value in flatten(results.params).items())
    parts += [fenced_in_report(params, "yaml", limit=len(params))]  # params are never cut
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in results.versions.items()) + "."]
    return "\n\n".join(parts) + "\n"


def _whole_table(rows: Sequence[Row]) -> str:
    return report_table(list(rows[0]), rows)


def summary(table: pd.DataFrame) -> str:
    """One line: every arm's accuracy and its change from its start's."""
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


def second_test_set(metrics: Mapping[str, Metrics], params: Mapping[str, Any]) -> Iterable[str]:
    rows = test_sets.second(metrics)
    if rows:
        yield _whole_table(rows)
        yield test_sets.second_note(metrics, params)


def after_examples(metrics: Mapping[str, Metrics]) -> Iterable[str]:
    rows = test_sets.few_shot(metrics)
    if rows:
        yield _whole_table(rows)
        yield test_sets.few_shot_note(metrics)


def where_gains_come_from(gained: Sequence[Row]) -> Iterable[str]:
    if gained:
        yield "## What the gains are made of"
        yield _whole_table(gained)
        yield gains.NOTE


def over_seeds(seeds: SeedTable | None) -> Iterable[str]:
    if seeds:
        yield "## The arms over several seeds"
        yield seeds.said
    if seeds and seeds.rows:
        yield _whole_table(seeds.rows)
        yield NOTE


def traces(table: pd.DataFrame, predictions: Mapping[str, Sequence[Prediction]]) -> Iterable[str]:
    """In test order, the first question that the last arm gained over its start, lost, and that both got wrong."""
    last = table.iloc[-1]
    arm, start = last["arm"], last["start"]
    if pd.isna(start):
        yield "No arm was trained."
        return
    before = [row.correct for row in predictions[start]]
    after = [row.correct for row in predictions[arm]]
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
        yield f"Question {code(first.id)}, right answer {code(first.gold)}."
        yield fenced_in_report(first.question)
        for name in (start, arm):
            yield from trace(name, predictions[name][index])


def trace(arm: str, prediction: Prediction) -> Iterable[str]:
    """One completion, its outcome above it and its equations below."""
    answer = "no answer" if prediction.answer is None else f"answer {code(prediction.answer)}"
    mark = "✓ right" if prediction.correct else "✗ wrong"
    cut = ", truncated" if prediction.truncated else ""
    yield f"**{cell(arm)}**: {mark}, {answer}, {prediction.tokens:,} tokens{cut}"
    yield fenced_in_report(prediction.completion)
    marks = [
        f"{'✓' if equation.holds else '✗'} {code(f'{equation.expression} = {equation.value}')}"
        for equation in prediction.equations
    ]
    yield "Equations: " + (" · ".join(marks) if marks else "none") + "."
