"""A snapshot of a commit or the workspace: its results, params, code and costs, for comparing two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StageLock:
    """A stage's entry in dvc.lock: its params, flat, and the md5 of each dep and out by path."""

    params: Mapping[str, Any]
    deps: Mapping[str, str]
    outs: Mapping[str, str]


@dataclass(frozen=True)
class Snapshot:
    """A commit or the workspace. columns: arm → 0 or 1 per question, in the order of ids; params are flat.

    code maps a stage or arm to the digests of its files. stale names params and code edited since the results were
    made. notes say which arms are left out of columns, and why.
    """

    name: str
    commit: str | None
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    evaluation: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Mapping[str, Any]]
    costs: Mapping[str, Mapping[str, Any]]
    params: Mapping[str, Any]
    stages: Mapping[str, StageLock]
    packages: Mapping[str, str]
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """md5 by path, of everything that the pipeline read or made."""
        return {path: md5 for stage in self.stages.values() for path, md5 in {**stage.deps, **stage.outs}.items()}


FORMER_ARMS = frozenset(("sft", "sft_dual", "grpo", "trajectory", "dsa_cast", "cast"))  # sections of earlier commits


def is_by_kind(params: Mapping[str, Any]) -> bool:
    """Whether flat params hold arms by kind; earlier commits have one section per arm."""
    return any(key.startswith(("sft.shared", "rl.shared", "cast.shared")) for key in params)


def by_arm(stage: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's params with the same keys in both layouts: `grpo.beta`, whether it was shared or not."""
    named: dict[str, Any] = {"prompt.system" if key == "prompt.plain" else key: v for key, v in params.items()}
    found = {}
    for key, value in named.items():
        section = key.partition(".")[0]
        is_other_arm = section in FORMER_ARMS and section != stage  # cast once read its start's section
        if ".shared." not in key and ".arms." not in key and not is_other_arm:
            found[key] = value
    for part in (".shared.", f".arms.{stage}."):  # an arm's own keys override the shared ones
        found |= {
            f"{stage}.{key.partition(part)[2]}": value
            for key, value in named.items()
            if part in key and not key.endswith(f"{part}prompt")
        }
    return found
