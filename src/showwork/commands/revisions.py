"""Reads the project at a commit, a branch, an experiment, or the workspace as a `Snapshot`.

Only git is needed: the files of a commit are unpacked into a temporary folder and read like the workspace. Only
`cached` looks into DVC's cache.
"""

import csv
import hashlib
import io
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from showwork import arms, files, syntax
from showwork.commands.doctor import locked_versions
from showwork.errors import UserError
from showwork.evaluation.snapshot import Snapshot, StageLock, is_by_kind
from showwork.names import suggest

WORKSPACE = "workspace"
OUTCOMES = Path("results/outcomes.csv")
READ = (
    "dvc.lock", "params.yaml", "requirements.lock", "results/outcomes.csv", "results/metrics/eval",
    "results/metrics/train", "results/costs", "code", "rewards", "src", "stages",
)  # fmt: skip
CACHE = Path(".dvc/cache/files/md5")
# DVC keeps queued experiments as entries of one reflog: "dvc-exp:REV:BASELINE:NAME".
QUEUE = "refs/exps/celery/stash"
QUEUED = re.compile(r".*dvc-exp:[0-9a-f]{40}:([0-9a-f]{40}):(?:.*:)?([^:]+)")
EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")


def git(*arguments: str) -> str:
    """Standard output of git. Raises UserError with git's message, or if git is not installed."""
    return _git(*arguments).decode()


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed; commits are read with it") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"git {arguments[0]}: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout


def resolve(name: str) -> str:
    """The full hash of a commit, branch, tag, or experiment of DVC. Raises UserError with a hint."""
    try:
        git("rev-parse", "--git-dir")
    except UserError as error:
        raise UserError(f"commits are read from git, and there is none to read here ({error})") from None
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except UserError:
        experiments = list_experiments()
        if name in experiments:
            return experiments[name]
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise UserError(
            f"{name} is not in this clone, which is shallow: it lacks older commits; "
            "`git fetch --unshallow` brings them"
        )
    known = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes").split()
    hint = suggest(
        name, [*known, *experiments], otherwise="`git log --oneline --all` and `dvc exp list --all` show what there is"
    )
    raise UserError(f"{name} is no commit, branch, tag or experiment of this repository; {hint}")


def list_experiments(baseline: str | None = None) -> dict[str, str]:
    """Name → commit of DVC's finished experiments; only those that started from the commit baseline, if given."""
    found = {}
    for line in git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines():
        commit, reference = line.split(" ", 1)
        if (match := EXPERIMENT.fullmatch(reference)) and baseline in (None, match[1] + match[2]):
            found[match[3]] = commit
    return found


def list_queued(baseline: str) -> set[str]:
    """Names of the experiments in DVC's queue that start from the commit baseline."""
    if not git("for-each-ref", QUEUE):
        return set()
    matches = map(QUEUED.fullmatch, git("reflog", "show", "--format=%gs", QUEUE).splitlines())
    return {match[2] for match in matches if match and match[1] == baseline}


def load(name: str, *, commit: str | None = None) -> Snapshot:
    """The snapshot of that name, at the commit given or else the one that it names.

    Raises UserError if the name is unknown, or the results are missing or broken.
    """
    if name == WORKSPACE:
        return _read(Path(), WORKSPACE, None)
    commit = commit or resolve(name)
    there = git("ls-tree", "--name-only", commit, "--", *READ).split()
    with tempfile.TemporaryDirectory(prefix="showwork-") as folder:
        if there:
            with zipfile.ZipFile(io.BytesIO(_git("archive", "--format=zip", commit, "--", *there))) as archive:
                archive.extractall(folder)
        try:
            return _read(Path(folder), name, commit)
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", f"{name}:")) from None


def cached(snapshot: Snapshot, path: str) -> Path | None:
    """A file with the content of the snapshot's, in DVC's cache or the workspace; None if neither has it."""
    md5 = snapshot.hashes.get(path)
    if md5 is None:
        return None
    for place in (CACHE / md5[:2] / md5[2:], Path(path)):
        if place.is_file() and _md5(place) == md5:
            return place
    return None


def _read(folder: Path, name: str, commit: str | None) -> Snapshot:
    path = folder / OUTCOMES
    if not path.exists():
        what = f"commit {commit[:7]}" if commit else "the workspace"
        raise UserError(
            f"{name}: {what} has no {OUTCOMES}, so there are no results to compare; `dvc repro` makes it, "
            f"`git log --oneline --all -- {OUTCOMES}` lists the commits that changed it"
        )
    ids, columns = read_outcomes(path)
    params = read_params(folder)
    lock = {_common_name(stage): entry for stage, entry in _yaml(folder / "dvc.lock").get("stages", {}).items()}
    columns, notes = _of_these_params(columns, params, lock, name=name)
    stages = {
        stage: StageLock(
            params=arms.flatten(entry.get("params", {}).get("params.yaml", {})),
            deps={dep["path"]: dep["md5"] for dep in entry.get("deps", ()) if "md5" in dep},
            outs={out["path"]: out["md5"] for out in entry.get("outs", ()) if "md5" in out},
        )
        for stage, entry in lock.items()
    }
    packages, code = folder / "requirements.lock", _json(folder / "code")
    return Snapshot(
        name=name, commit=commit, ids=ids, columns=columns, evaluation=_json(folder / "results/metrics/eval"),
        training=_json(folder / "results/metrics/train"), costs=_json(folder / "results/costs"), params=params,
        stages=stages, packages=locked_versions(packages) if packages.exists() else {}, code=code,
        stale=_stale(folder, params, lock, code), notes=notes,
    )  # fmt: skip


def _common_name(stage: str) -> str:
    """A stage's name in the former layout, so that snapshots of both can be compared: `rl@grpo` is `grpo`,
    `evaluate_rl@grpo` and `evaluate_base` are evaluate@grpo and evaluate@base."""
    group, at, arm = stage.partition("@")
    if group == "evaluate_base":
        return "evaluate@base"
    if group.startswith("evaluate_"):
        return f"evaluate@{arm}"
    return arm if at and group in arms.KINDS else stage


def _of_these_params(
    columns: Mapping[str, np.ndarray], params: Mapping[str, Any], lock: Mapping[str, Any], *, name: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The columns of the arms in params.yaml whose results were made with these params, and notes on the others.

    Raises UserError if none is left. A snapshot of the former layout is not filtered.
    """
    starts = {arm: start for arm, start in arms.starts_of(params, columns).items() if start}
    if not is_by_kind(params):
        return dict(columns), ()
    kept: dict[str, np.ndarray] = {}
    others: dict[str, list[str]] = {}  # param → arms
    gone = []
    for arm, column in columns.items():
        if arm != arms.BASE and arm not in starts:
            gone.append(f"{arm} is no arm of params.yaml")
            continue
        path = arms.lineage(arm, starts | {arms.BASE: None}) if arms.BASE in _ends(arm, starts) else [arm]
        made = ["ingest", "clean", "weights", "tokenizer", *path, f"evaluate@{arm}"]
        changed = [key for stage in made for key in _changed_params(lock.get(stage, {}), params)]
        if changed:
            others.setdefault(changed[0], []).append(arm)
        else:
            kept[arm] = column
    causes = gone + [
        f"{', '.join(made)} {'was' if len(made) == 1 else 'were'} made with another {key}"
        for key, made in others.items()
    ]
    if not kept:
        raise UserError(f"{name}: its results are of other params ({'; '.join(causes)}); `dvc repro` makes them anew")
    notes = (f"left out of {name}: {'; '.join(causes)}; `dvc repro`",) if causes else ()
    return kept, notes


def _ends(arm: str, starts: Mapping[str, str]) -> list[str]:
    """The arm and its chain of starts, as far as they are known."""
    path = [arm]
    while (start := starts.get(path[-1])) and start not in path:
        path.append(start)
    return path


def read_outcomes(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Ids, and a column of 0/1 per arm. Raises UserError with the line of a fault."""
    remedy = "`dvc repro report` writes it again"
    try:
        rows = files.read_csv(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file ({error}); {remedy}") from None
    if not rows or "id" not in rows[0] or len(rows[0]) < 2:
        raise UserError(f"{path}: needs a header `id,ARM,…` and a row a question; {remedy}")
    arms = [arm for arm in rows[0] if arm not in ("id", None)]
    ids = tuple(row["id"] for row in rows)
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        bad = next((f"{arm} is {row[arm]!r}, not 0 or 1" for arm in arms if row[arm] not in ("0", "1")), None)
        bad = "more cells than the header" if None in row else bad
        bad = f"id {row['id']!r} is empty or stands twice" if not row["id"] or row["id"] in seen else bad
        if bad:
            raise UserError(f"{path}: line {line}: {bad}; {remedy}")
        seen.add(row["id"])
    return ids, {arm: np.array([int(row[arm]) for row in rows], np.int8) for arm in arms}


def read_params(folder: Path) -> dict[str, Any]:
    """params.yaml, flat; empty if it is missing."""
    return arms.flatten(_yaml(folder / "params.yaml"))


def read_params_at(commit: str) -> dict[str, Any]:
    """params.yaml of a commit, flat; empty if it is missing."""
    if not git("ls-tree", "--name-only", commit, "--", "params.yaml"):
        return {}
    return arms.flatten(_parse_yaml(_git("show", f"{commit}:./params.yaml"), f"{commit[:7]}:params.yaml"))


def _stale(
    folder: Path, params: Mapping[str, Any], lock: Mapping[str, Any], code: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    """Params and code that have changed since the run that dvc.lock records."""
    found: dict[str, None] = {}
    for entry in lock.values():
        found |= dict.fromkeys(_changed_params(entry, params))
        for dep in entry.get("deps", ()):
            path = folder / dep["path"]
            if path.suffix == ".py" and not (path.is_file() and _md5(path) == dep["md5"]):
                found[dep["path"]] = None
    for recorded in code.values():
        for file, digest in recorded.items():
            path = folder / file
            if not (path.is_file() and syntax.digest(path) == digest):
                found[file] = None
    return tuple(found)


def _changed_params(entry: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """The keys of a stage's params whose values in dvc.lock and params.yaml differ."""
    changed = []
    # Section by section, so that keys added since are found too.
    for section, values in entry.get("params", {}).get("params.yaml", {}).items():
        made = arms.flatten({section: values})
        now = {key: value for key, value in params.items() if key == section or key.startswith(f"{section}.")}
        same = [key for key in made if key in now and made[key] == now[key]]
        changed += [key for key in {**made, **now} if key not in same]
    return changed


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _json(folder: Path) -> dict[str, Any]:
    return {path.stem: files.read_json(path) for path in sorted(folder.glob("*.json"))}


def _yaml(path: Path) -> dict[str, Any]:
    return _parse_yaml(path.read_bytes(), str(path)) if path.exists() else {}


def _parse_yaml(content: bytes, name: str) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(content)
    except (YAMLError, ValueError) as error:
        raise UserError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise UserError(f"{name}: empty, or not a mapping")
    return values
