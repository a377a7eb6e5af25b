"""Compares the arms: results → outcomes.csv, report.md, curves.svg, report.html, plots/accuracy_by_steps.csv and
metrics/arms.json.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from showwork import config, stage
from showwork.files import read_csv, read_json, read_jsonl, write_csv, write_json, write_text
from showwork.records import Problem
from showwork.report import gains
from showwork.report.charts import curves_svg
from showwork.report.markdown import flatten, render
from showwork.report.page import render_page
from showwork.report.seed_table import read
from showwork.report.tables import TERMINAL, accuracy_by_steps, arm_table, display, outcomes

PACKAGES = ("showwork", "jax", "flax", "google-tunix", "qwix", "optax", "sentencepiece", "scipy")
RESULTS = Path("results")
HEADLINES = ("accuracy", "faithful_rate", "accuracy_sampled")  # of each arm: the columns of `dvc exp show`
TEST, SEEDS = Path("data/clean/test.jsonl"), RESULTS / "seeds.csv"


def main() -> None:
    params = config.load()
    # An arm and the arm that it started from.
    arms = [("base", None), *((name, getattr(params, name).start) for name in config.ARMS[1:])]
    names = [name for name, _ in arms]
    files = {name: RESULTS / "predictions" / f"{name}.jsonl" for name in names}
    predictions = {name: list(read_jsonl(file)) for name, file in files.items()}
    metrics = {name: read_json(RESULTS / "metrics" / "eval" / f"{name}.json") for name in names}
    plots = {name: pd.DataFrame(read_csv(RESULTS / "plots" / f"{name}.csv")) for name in names}
    # Costs are no outs of DVC, and those of this stage are not there yet.
    stages = ["ingest", "clean", "tokenizer", *names, *(f"evaluate-{name}" for name in names)]
    costs = {name: RESULTS / "costs" / f"{name}.json" for name in stages}

    write_csv(RESULTS / "outcomes.csv", ["id", *names], outcomes(predictions))
    write_csv(RESULTS / "plots/accuracy_by_steps.csv", ["steps", "n", *names], accuracy_by_steps(metrics))
    headlines = {name: {key: values.get(key) for key in HEADLINES} for name, values in metrics.items()}
    write_json(RESULTS / "metrics" / "arms.json", headlines)
    write_text(RESULTS / "curves.svg", curves_svg(plots))
    problems = [Problem.from_json(row) for row in read_jsonl(TEST)]
    known = {
        "table": arm_table(RESULTS, arms, seed=params.seed),
        "metrics": metrics,
        "predictions": predictions,
        "params": params.model_dump(exclude={"live"}),  # which decides what is watched, and nothing that is made
        "gained": gains.rows(arms, predictions, problems),
        "seeds": read(SEEDS, dict(flatten(YAML(typ="safe", pure=True).load(config.PARAMS)))),
        "versions": {name: version(name) for name in PACKAGES},
    }
    inputs = [TEST, *files.values(), *([SEEDS] if known["seeds"] else [])]
    questions = {row["id"]: row["question"] for row in predictions["base"]}
    write_text(RESULTS / "report.md", render(**known, curves="curves.svg", questions=questions))
    page = render_page(
        **known,
        problems=problems,
        plots=plots,
        costs={name: read_json(file) for name, file in costs.items() if file.is_file()},
        inputs={str(file): hashlib.md5(file.read_bytes()).hexdigest() for file in inputs},
    )
    write_text(RESULTS / "report.html", page)

    shown = Table(*TERMINAL, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for cells in display(known["table"]):
        shown.add_row(*(cells[column] for column in TERMINAL))
    console = Console()
    console.print(shown)
    console.print(f"Report: {RESULTS / 'report.html'} and {RESULTS / 'report.md'}", highlight=False)


if __name__ == "__main__":
    stage.run("report", main)
