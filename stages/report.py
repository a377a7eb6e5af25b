"""Compares the arms: results → outcomes.csv, report.md, curves.svg, report.html, curves.csv, accuracy_by_steps.csv and
metrics/arms.json. Removes files of arms that params.yaml no longer has.
"""

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

import _path  # noqa: F401
from showwork import config, stage
from showwork.arms import flatten
from showwork.evaluation.predictions import Prediction
from showwork.files import read_csv, read_json, read_jsonl, write_csv, write_json, write_text
from showwork.problems.stored import read_problems
from showwork.report import curves, leftovers
from showwork.report.charts import NO_CURVES, curves_svg
from showwork.report.markdown import CURVES, render
from showwork.report.page import render_page
from showwork.report.results import Cost, Results
from showwork.report.seed_table import read
from showwork.report.tables import TERMINAL, accuracy_by_steps, arm_table, display, outcomes

PACKAGES = ("showwork", "jax", "flax", "google-tunix", "qwix", "optax", "sentencepiece", "scipy")
RESULTS = Path("results")
HEADLINES = ("accuracy", "faithful_rate", "accuracy_sampled")  # of each arm: the columns of `dvc exp show`
TEST, SEEDS = Path("data/clean/test.jsonl"), RESULTS / "seeds.csv"


def main() -> None:
    params = config.load()
    results = load(params)
    write_json(
        RESULTS / "metrics" / "arms.json",
        {name: {key: values.get(key) for key in HEADLINES} for name, values in results.metrics.items()},
    )
    write_csv(RESULTS / "accuracy_by_steps.csv", ["steps", "n", "arm", "accuracy"], accuracy_by_steps(results.metrics))
    # base from published weights has no curve; with an arm beside it, no curve at all is an error.
    is_drawn = results.has_curves or len(params.arms) > 1
    write_text(RESULTS / CURVES, curves_svg(results.plots) if is_drawn else NO_CURVES)
    write_text(RESULTS / "report.md", render(results))
    write_text(RESULTS / "report.html", render_page(results))
    remove_leftovers(list(params.arms))
    show(results.table)


def remove_leftovers(arms: list[str]) -> None:
    for path in leftovers.find(RESULTS, arms):
        path.unlink()
        print(f"showwork report: removed {path}: params.yaml has no such arm", file=sys.stderr)


def load(params: config.Params) -> Results:
    """Loads the results of every arm, and writes outcomes.csv and curves.csv from them."""
    names = list(params.arms)
    files = {name: RESULTS / "predictions" / f"{name}.jsonl" for name in names}
    predictions = {name: [Prediction.from_json(row) for row in read_jsonl(file)] for name, file in files.items()}
    plots = {name: read_csv(RESULTS / "plots" / f"{name}.csv") for name in names}
    write_csv(RESULTS / "outcomes.csv", ["id", *names], outcomes(predictions))
    write_csv(RESULTS / "curves.csv", curves.COLUMNS, curves.long_form(plots))
    seeds = read(SEEDS, flatten(YAML(typ="safe", pure=True).load(config.PARAMS)))
    inputs = [TEST, *files.values(), *([SEEDS] if seeds else [])]
    return Results(
        arms=params.arms,
        table=arm_table(RESULTS, {arm.name: arm.start for arm in params.arms.values()}, seed=params.seed),
        metrics={name: read_json(RESULTS / "metrics" / "eval" / f"{name}.json") for name in names},
        predictions=predictions,
        problems=read_problems(TEST),
        plots={name: pd.DataFrame(rows) for name, rows in plots.items()},
        costs=read_costs(names),
        params=params.model_dump(exclude={"live"}),  # affects monitoring only
        inputs={str(file): hashlib.md5(file.read_bytes()).hexdigest() for file in inputs},
        versions={name: version(name) for name in PACKAGES},
        seeds=seeds,
    )


def read_costs(arms: list[str]) -> dict[str, Cost]:
    """Costs by stage, if recorded: they are not DVC outs, and this stage's are not written yet."""
    stages = ["ingest", "clean", "weights", "tokenizer", *arms, *(f"{leftovers.EVALUATE}{name}" for name in arms)]
    files = {name: RESULTS / "costs" / f"{name}.json" for name in stages}
    return {name: read_json(file) for name, file in files.items() if file.is_file()}


def show(table: pd.DataFrame) -> None:
    shown = Table(*TERMINAL, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for cells in display(table):
        shown.add_row(*(cells[column] for column in TERMINAL))
    console = Console()
    console.print(shown)
    console.print(f"Report: {RESULTS / 'report.html'} and {RESULTS / 'report.md'}", highlight=False)


if __name__ == "__main__":
    stage.run("report", main)
