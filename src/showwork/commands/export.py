"""showwork export: packs a trained arm into a folder with weights, tokenizer and a model card."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showwork.commands import say
from showwork.errors import UserError

if TYPE_CHECKING:
    from showwork.config import Params
    from showwork.evaluation.scoring import Metrics
    from showwork.tunix_adapter.gemma import Model

MODELS, RESULTS = Path("models"), Path("results")
# Measures over all n test questions; those with another n have rows of their own in the card.
SHARES = {
    "accuracy": "right answer, greedy",
    "accuracy_flexible": "right by the last number, whatever the form",
    "accuracy_within_10pct": "within 10% of it",
    "format_rate": "form kept to the letter",
    "faithful_rate": "right, every equation true, the last result the answer",
    "truncated_rate": "cut off by the limit of tokens",
}
WEAK = 0.25


class Dtype(StrEnum):
    """Types that weights are written in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def export(
    arm: Annotated[str, typer.Argument(help="The arm whose model is packed: sft, grpo, …")],
    out: Annotated[Path, typer.Option("--out", help="A folder that does not exist yet.")],
    dtype: Annotated[Dtype | None, typer.Option(help="Of the weights; without it, model.dtype.")] = None,
    questions: Annotated[int, typer.Option(min=0, help="Test questions asked before and after rounding.")] = 64,
) -> None:
    """Pack an arm's model, its adapter merged, with a model card: origin, settings, results and limits."""
    from showwork import config
    from showwork.files import read_json, write_text
    from showwork.models import merging
    from showwork.names import suggest

    params, source = config.load(), MODELS / arm
    if arm not in params.arms:
        raise UserError(f"arm {arm} is unknown; {suggest(arm, list(params.arms))}")
    if not source.is_dir():
        kind = params.arms[arm].kind
        stage = arm if kind == "base" else f"{kind}@{arm}"
        raise UserError(f"{source}: no such model: it was not trained yet; `dvc repro {stage}` makes it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a folder that does not exist")
    wanted = str(dtype or params.model.dtype)
    card = render_card(
        arm, params, metrics=read_json(RESULTS / "metrics/eval" / f"{arm}.json"),
        data=read_json(RESULTS / "metrics/clean.json"), commit=describe_commit(),
        has_adapter=(source / "adapter").is_dir(), dtype=wanted,
    )  # fmt: skip
    # Written beside the target and renamed, so that an interrupted export leaves no folder that looks complete.
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    start = params.arms[arm].start
    lost = merging.write(source, temporary, dtype=wanted, start=MODELS / start if start else None)
    write_text(temporary / "README.md", card)
    if out.exists():
        out.rmdir()
    temporary.rename(out)
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    say(f"{out}: {len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB, weights in {wanted}; README.md is its card")
    if lost is not None:
        say(f"rounding to {wanted} lost {max(0.0, lost):.1%} of what training has added to {start}")
    if questions:
        say(_compare_answers(arm, params, out, wanted, count=questions))


def _compare_answers(arm: str, params: Params, out: Path, dtype: str, *, count: int) -> str:
    """How many greedy answers of the exported weights differ from those of the trained ones, and what is right."""
    import jax

    from showwork import rollout, tokenizer
    from showwork.models import checkpoints
    from showwork.problems.stored import read_problems
    from showwork.reading.completion import read

    problems = read_problems(Path("data/clean/test.jsonl"))[:count]
    texts: list[list[str]] = []
    right: list[int] = []

    def ask(model: Model, folder: Path) -> None:
        complete = rollout.Completer(
            model, tokenizer.load(folder), params.system(arm), checkpoints.stop_ids(folder),
            max_tokens=params.evaluate.max_completion_tokens, rows_per_call=params.evaluate.rows_per_call,
        )  # fmt: skip
        greedy = rollout.Sampling(greedy=True)
        found = complete(problems, key=jax.random.key(0), sampling=greedy, generations=1, name=f"answers of {folder}")
        texts.append([row.text for (row,) in found])
        right.append(sum(read(text).is_correct(p.answer) for text, p in zip(texts[-1], problems, strict=True)))

    ask(checkpoints.load(MODELS / arm, dtype=params.model.dtype).model, MODELS / arm)
    # Merged: the adapter beside these weights is in them already.
    ask(checkpoints.load_weights(out, dtype=dtype, weights_dtype=dtype).model, out)
    differing = sum(ours != theirs for ours, theirs in zip(*texts, strict=True))
    return (
        f"{differing} of {len(problems)} greedy answers differ from those of {MODELS / arm}, which computes in "
        f"{params.model.dtype}: {right[0]} right before, {right[1]} after"
    )


def describe_commit() -> str:
    """The commit, and whether a tracked file differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"`{commit}`, with changes that are in no commit" if git("status", "-s", "-uno") else f"`{commit}`"
    except (OSError, subprocess.CalledProcessError):
        return "none: this was no git checkout"


def render_card(
    arm: str, params: Params, *, metrics: Metrics, data: Mapping[str, Any], commit: str, has_adapter: bool, dtype: str
) -> str:
    """README.md of an exported folder, as the hubs read it: a YAML header, then Markdown."""
    from showwork.arms import lineage
    from showwork.models.specs import PUBLISHED

    name, weights, system = params.model.name, params.base.weights, params.system(arm)
    way = lineage(arm, {other.name: other.start for other in params.arms.values()})
    rows = data["rows"]
    turn = "one user turn, this text, a blank line, the question:" if system else "one user turn, the question alone."
    origin = f"published weights, `{weights}`" if weights else "random weights: it was trained from scratch"
    lines = [
        "---", _yaml(_header(params)), "---", "",
        f"# {arm}: {name}, trained to show its work", "",
        f"Made by showwork as {' → '.join(way)}, from {origin}.", "",
        f"- commit: {commit}",
        f"- model: {name}, weights in {dtype}; the results below were computed in {params.model.dtype}"
        + (", with LoRA merged; the folder `adapter` holds the adapter alone" if has_adapter else ""),
        f"- seed: {params.seed}",
        f"- licence: {'the terms of use of Gemma' if name in PUBLISHED else 'Apache-2.0'}", "",
        "## How to ask it", "",
        f"With the tokenizer's chat template: {turn}",
        *(["", "```", system, "```"] if system else []), "",
        "## Data", "",
        f"{rows['train']:,} problems to train on, {rows['val']:,} to validate, {rows['test']:,} to test; "
        f"{data['train']['rejected'] + data['test']['rejected']:,} were rejected.", "",
        "```yaml", _yaml(data["provenance"]["source"]), "```", "",
        "## Settings", "",
        "```yaml", _yaml({stage: params.arms[stage].settings.model_dump() for stage in way}), "```", "",
        "## Results", "",
        f"On {metrics['n']:,} test questions that no training saw; 95% Wilson intervals.", "",
        *results(metrics), "",
        "## What it is not good for", "",
        *(f"- {line}" for line in limits(params, metrics)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _header(params: Params) -> dict[str, str]:
    """The card's YAML header, for the hubs."""
    from showwork.models.specs import PUBLISHED

    header = {"library_name": "transformers", "pipeline_tag": "text-generation", "language": "en"}
    header["license"] = "gemma" if params.model.name in PUBLISHED else "apache-2.0"
    if params.base.weights and params.base.weights.startswith("hub:"):
        header["base_model"] = params.base.weights.removeprefix("hub:").partition("@")[0]
    return header


def results(metrics: Metrics) -> list[str]:
    """Rows of a Markdown table: measure, value, interval, n."""
    from showwork.evaluation.statistics import wilson

    n = int(metrics["n"])
    table = ["| measure | value | 95% interval | n |", "| --- | --- | --- | --- |"]
    for key, label in SHARES.items():
        low, high = wilson(round(metrics[key] * n), n)
        table.append(f"| {label} | {metrics[key]:.1%} | {low:.1%} to {high:.1%} | {n:,} |")
    # Equations of one completion, and samples of one question, are not independent: no interval.
    if metrics.get("equations_n"):
        table.append(f"| equations that hold | {metrics['equations_hold_rate']:.1%} | – | {metrics['equations_n']:,} |")
    if metrics.get("samples_n"):
        count, k = metrics["samples_n"], metrics["samples_k"]
        for key, label in (
            ("accuracy_sampled", "right answer, sampled"),
            (f"pass_at_{k}", f"right at least once in {k} samples"),
            (f"maj_at_{k}", f"right by the majority of {k} samples"),
        ):
            table.append(f"| {label} | {metrics[key]:.1%} | – | {count:,} questions × {k} |")
    return table


def limits(params: Params, metrics: Metrics) -> list[str]:
    """Limits of use, from the metrics and from what was not measured."""
    kind = {
        "generated": "word problems that showwork's own generator makes, of few kinds and in its wording",
        "jsonl": "the word problems of the files named above",
        "hub": "the word problems of the data set named above",
    }[params.data.source]
    found = [
        f"Answers that nobody checks: {1 - metrics['accuracy']:.1%} of those to the test questions are wrong.",
        f"Anything but {kind}, in English: nothing else was measured.",
        f"Proof by its reasoning: {metrics['accuracy'] - metrics['faithful_rate']:.1%} of all completions come to the "
        "right answer by reasoning that is false or does not lead there.",
        "Conversation, advice, or teaching without a teacher: it was not made safe, and its bias was not measured.",
    ]
    weak = [
        f"{key.removeprefix('accuracy_steps_')} ({metrics[key]:.0%} of {metrics[key.replace('accuracy', 'n')]})"
        for key in metrics
        if key.startswith("accuracy_steps_") and metrics[key] < WEAK
    ]
    if weak:
        found.insert(1, f"Problems of as many steps as these, where it is mostly wrong: {', '.join(weak)}.")
    if not params.base.weights:
        found.append("Language: it was trained from scratch on such problems and has read nothing else.")
    return found


def _yaml(value: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    buffer = StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(value, buffer)
    return buffer.getvalue().rstrip()
