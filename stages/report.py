"""Compares the arms: results → results/outcomes.csv, results/report.md, results/curves.svg."""

from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from showwork import config, stage
from showwork.files import read_csv, read_json, read_jsonl, write_csv, write_text
from showwork.report.markdown import curves_svg, render
from showwork.report.tables import TERMINAL, arm_table, display, outcomes

PACKAGES = ("showwork", "jax", "flax", "google-tunix", "qwix", "optax", "sentencepiece", "scipy")
RESULTS = Path("results")


def main() -> None:
    params = config.load()
    # An arm and the arm that it started from.
    arms = [("base", None), ("sft", params.sft.start), ("grpo", params.grpo.start)]
    names = [name for name, _ in arms]
    predictions = {name: list(read_jsonl(RESULTS / "predictions" / f"{name}.jsonl")) for name in names}
    metrics = {name: read_json(RESULTS / "metrics" / "eval" / f"{name}.json") for name in names}
    plots = {name: pd.DataFrame(read_csv(RESULTS / "plots" / f"{name}.csv")) for name in names}

    write_csv(RESULTS / "outcomes.csv", ["id", *names], outcomes(predictions))
    table = arm_table(RESULTS, arms, seed=params.seed)
    write_text(RESULTS / "curves.svg", curves_svg(plots))
    page = render(
        table=table,
        metrics=metrics,
        predictions=predictions,
        curves="curves.svg",
        params=params.model_dump(),
        versions={name: version(name) for name in PACKAGES},
        questions={row["id"]: row["question"] for row in predictions["base"]},
    )
    write_text(RESULTS / "report.md", page)

    shown = Table(*TERMINAL, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for cells in display(table):
        shown.add_row(*(cells[column] for column in TERMINAL))
    console = Console()
    console.print(shown)
    console.print(f"Report: {RESULTS / 'report.md'}", highlight=False)


if __name__ == "__main__":
    stage.run("report", main)
