"""showwork seeds: queues the same recipe with other seeds as DVC experiments, and shows the spread across them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from showwork.commands import say
from showwork.errors import UserError

if TYPE_CHECKING:
    from showwork.evaluation.seeds import SeedRun, SeedSummary
    from showwork.evaluation.snapshot import Snapshot

SAVED = Path("results/seeds.csv")
# The inputs of a run: they must be committed, so that only the seed differs between HEAD and an experiment.
CAUSES = ("params.yaml", "dvc.yaml", "rewards", "src", "stages", "data/source")


def seeds(
    count: Annotated[int | None, typer.Argument(metavar="[N]", min=1, help="Queue this many more seeds.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show mean and spread over the seeds that have run.")] = False,
    of: Annotated[str, typer.Option("--of", help="The commit that the experiments started from.")] = "HEAD",
    save: Annotated[bool, typer.Option("--save", help=f"Write the results to {SAVED}, for the report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; shares are fractions of 1.")] = False,
    markdown: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
) -> None:
    """Queue the pipeline with other seeds, or show mean and spread of each arm across those that have run."""
    if count is not None:
        for seed in queue(count):
            say(f"queued {_name(seed)}")
        say("`dvc exp run --run-all` runs them one after another, `dvc queue start --jobs 2` two at once;")
        say("`showwork seeds --show` shows the finished ones.")
        return
    if not (show or save):
        raise UserError("say how many seeds to queue, `showwork seeds 3`, or --show those that have run")
    runs, left_out = finished(of)
    from showwork.evaluation.seeds import summarise

    made = arm_runs(runs)
    summaries = summarise(made)
    if as_json:
        found = {"of": of, "seeds": list(runs), "arms": [asdict(s) for s in summaries], "left_out": left_out}
        say(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        say(_render(runs, summaries, left_out, of=of, markdown=markdown))
    if save:
        _save(made, of=of)


def queue(count: int) -> list[int]:
    """Queues experiments with the next seeds after params.yaml's that are neither run nor queued; returns them.

    Raises UserError if there is no seed to change, or if inputs of a run are not committed.
    """
    from showwork.commands import revisions

    own = revisions.read_params(Path()).get("seed")
    if type(own) is not int:
        raise UserError("params.yaml has no whole number `seed` here; run from the project's root")
    commit = revisions.resolve("HEAD")
    if changed := revisions.git("status", "--porcelain", "--", *CAUSES).splitlines():
        raise UserError(
            f"{changed[0][3:]} is changed and not committed: commit it first, so that the seed is all that differs "
            "from HEAD"
        )
    experiments = revisions.list_experiments(baseline=commit).values()
    done = {revisions.read_params_at(experiment).get("seed") for experiment in experiments}
    waiting = revisions.list_queued(commit)
    free = (seed for seed in itertools.count(own + 1) if seed not in done and _name(seed) not in waiting)
    chosen = list(itertools.islice(free, count))
    for seed in chosen:
        _queue(seed)
    return chosen


def _name(seed: int) -> str:
    return f"seed-{seed}"


def _queue(seed: int) -> None:
    command = ["dvc", "exp", "run", "--queue", "--name", _name(seed), "--set-param", f"seed={seed}"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise UserError(f"`{' '.join(command)}` failed:\n{said}")


def finished(of: str) -> tuple[dict[int, Snapshot], list[str]]:
    """Seed → snapshot, of the commit and of its experiments that differ only in the seed; and what was left out.

    Raises UserError if none has run.
    """
    from showwork.commands import revisions
    from showwork.evaluation.seeds import recipe

    commit = revisions.resolve(of)
    wanted = recipe(revisions.read_params_at(commit))
    runs: dict[int, Snapshot] = {}
    left_out = []
    for name, found in {of: commit, **revisions.list_experiments(baseline=commit)}.items():
        params = revisions.read_params_at(found)
        if recipe(params) != wanted:
            left_out.append(f"{name}: it differs in more than the seed")
            continue
        try:
            run = revisions.load(name, commit=found)
        except UserError as error:
            left_out.append(str(error))
            continue
        if run.stale:
            left_out.append(f"{name}: its results were made before {run.stale[0]} changed")
        elif params["seed"] in runs:
            left_out.append(f"{name}: seed {params['seed']} is there already")
        else:
            runs[params["seed"]] = run
    if not runs:
        raise UserError(f"{of}: no run of it has results ({'; '.join(left_out)}); `showwork seeds 3` queues some")
    return dict(sorted(runs.items())), left_out


def arm_runs(runs: Mapping[int, Snapshot]) -> list[SeedRun]:
    """The result of each arm at each seed."""
    from showwork import arms
    from showwork.evaluation.seeds import SeedRun

    found = []
    for seed, run in runs.items():
        starts = arms.starts_of(run.params, run.columns)
        for arm, column in run.columns.items():
            start = starts[arm]
            before = run.columns.get(start or "")
            gained = lost = None
            if before is None:
                start = None
            else:
                gained, lost = int((column > before).sum()), int((column < before).sum())
            found.append(SeedRun(seed, arm, start, len(run.ids), int(column.sum()), gained, lost))
    return found


def _render(
    runs: Mapping[int, Snapshot], summaries: Sequence[SeedSummary], left_out: Sequence[str], *, of: str, markdown: bool
) -> str:
    from showwork.formatting import markdown_table, text_table
    from showwork.report.seed_table import NOTE, cells

    title = f"{of}: {len(runs)} seeds ({', '.join(map(str, runs))})"
    notes = [f"{'-' if markdown else '!'} left out: {reason}" for reason in left_out]
    table = (markdown_table if markdown else text_table)(cells(summaries))
    blocks = [f"## {title}" if markdown else title, table]
    return "\n\n".join([*blocks, *(["\n".join(notes)] if notes else []), NOTE])


def _save(runs: Sequence[SeedRun], *, of: str) -> None:
    from showwork.commands import revisions
    from showwork.evaluation.seeds import COLUMNS, digest
    from showwork.files import write_csv

    commit = revisions.resolve(of)
    recipe = {"commit": commit, "params": digest(revisions.read_params_at(commit))}
    write_csv(SAVED, COLUMNS, [asdict(run) | recipe for run in runs])
    # Not on standard output, which --json may use.
    print(f"{SAVED} written; `dvc repro` brings it into the report", file=sys.stderr)
