"""CAST, the self-teaching loop: a model samples, its failures are analysed, and it learns from its right solutions.

A round: attempts at a slice of train; their analysis; new problems like the failed ones (problems.variants); the
model's own solutions of both, kept where they are sound; a small fine-tune on them, with replay of the data's solutions
against forgetting; accuracy on validation. A round that does not help is discarded, weights included, and two in a row
end the loop. No solution is given from outside: gold answers only select.
"""

import shutil
import zlib
from collections.abc import Collection, Sequence
from typing import Any, TypedDict

import jax
import numpy as np
from flax import nnx

from showwork import devices, rollout
from showwork.config import Cast
from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.problems.variants import question_mark
from showwork.reading.completion import read
from showwork.records import Completion, Problem
from showwork.sampling import Sampling
from showwork.training import data, sft
from showwork.training.arms import LoadedArm
from showwork.training.curves import Curve
from showwork.training.run import RECORDS, Run
from showwork.training.selection import analyse, examples_of, keep, make_variants, weakest_first
from showwork.tunix_adapter import lora
from showwork.tunix_adapter.gemma import Model

# Of a round: greedy accuracy on validation after it, whether that is better than before, the training's loss; share of
# right and of sound attempts; solutions kept, variants made, how many of the kept are theirs, rows replayed.
# train_tokens and sampled_tokens, without those of validation, are sums over all rounds so far.
COLUMNS = (
    "val_accuracy", "accepted", "loss", "accuracy", "sound", "kept", "variants", "kept_variants", "replayed",
    "train_tokens", "sampled_tokens",
)  # fmt: skip
PATIENCE = 2  # rounds in a row that do not help


class Record(TypedDict, total=False):
    """Values of a round, see COLUMNS; its tokens alone. loss is None where nothing was trained."""

    accepted: int
    loss: float | None
    train_tokens: int
    sampled_tokens: int
    val_accuracy: float
    accuracy: float
    sound: float
    kept: int
    variants: int
    kept_variants: int
    replayed: int


START: Record = {"accepted": 1, "loss": None, "train_tokens": 0, "sampled_tokens": 0}


class Sampled(TypedDict):
    """What a round sampled: its analysis, examples to look at, the (question, completion) pairs kept, and counts."""

    analysis: dict[str, Any]
    examples: list[dict[str, Any]]
    kept: list[tuple[str, str]]
    counts: dict[str, int]


def train(
    arm: LoadedArm[Cast],
    problems: Sequence[Problem],
    validation: Sequence[Problem],
    replay: Sequence[data.Example],
    run: Run,
    *,
    taken: Collection[str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains the model in place, round by round; returns the stage's metrics and each round's analysis and examples.

    taken are the marks (variants.question_mark, plan_mark) that no new problem may have. Every finished part of a
    round is a file in the scratch folder, so that a run that was killed resumes there and ends in the same bytes.
    """
    rounds = Rounds(arm, problems, validation, replay, run, taken=taken)
    history = History(run)
    if not history.records:
        history.write({**START, "val_accuracy": rounds.validate(0)})
    history.restart_curve()
    if history.best:
        rounds.fine_tune(history.best)
    weights = _weights(arm.model)
    for step in range(len(history.records), arm.settings.rounds + 1):
        if step - history.best > PATIENCE:
            break
        record = rounds.teach(step, best_accuracy=history.records[history.best]["val_accuracy"])
        if record["accepted"]:
            weights = _weights(arm.model)
        else:
            nnx.update(arm.model, weights)
            devices.place(arm.model, run.mesh)
        history.write(record)
        history.add_to_curve(step)
        rounds.remove_states(but=history.best, until=step)
    metrics = history.metrics(steps_per_round=arm.settings.training.steps)
    story = [row for step in range(1, len(history.records)) for row in rounds.story(step)]
    return metrics | {"prompts_too_long": len(problems) - len(rounds.problems)}, story


class Rounds:
    """The parts of a round: attempts, analysis, variants, selection, fine-tune, validation."""

    def __init__(
        self, arm: LoadedArm[Cast], problems: Sequence[Problem], validation: Sequence[Problem],
        replay: Sequence[data.Example], run: Run, *, taken: Collection[str],
    ):  # fmt: skip
        """Raises UserError where the prompts of train or of validation are all too long."""
        limits = arm.settings.rollout
        self._arm, self._settings, self._replay, self._run = arm, arm.settings, replay, run
        self._complete = rollout.Completer(
            arm.model, arm.tokenizer, arm.system, arm.stop_ids, max_tokens=limits.max_completion_tokens,
            rows_per_call=limits.rows_per_call, mesh=arm.rollout_mesh, prompt_tokens=limits.max_prompt_tokens,
        )  # fmt: skip
        self.problems = self._fitting(problems)
        self._validation = self._fitting(validation)[: arm.settings.validation_problems]
        if not self.problems or not self._validation:
            raise UserError(f"{run.name}.rollout.max_prompt_tokens {limits.max_prompt_tokens}: no prompt is that short")
        self._order = np.random.default_rng([run.seed, run.number]).permutation(len(self.problems))
        self._taken = {*taken, *map(question_mark, problems), *map(question_mark, validation)}

    def teach(self, step: int, *, best_accuracy: float) -> Record:
        """A whole round. Leaves the model with the round's weights; accepted says whether they are to be kept."""
        file = self._run.scratch / f"{step:02d}" / "sampled.json"
        if not file.exists():
            write_json(file, self.sample(step))
        sampled: Sampled = read_json(file)
        record: Record = {"loss": None, "train_tokens": 0, "replayed": 0, "val_accuracy": best_accuracy}
        if sampled["kept"]:
            record = {**self.fine_tune(step), "val_accuracy": self.validate(step)}
        attempts = sampled["analysis"]["attempts"]
        return {
            **record, **sampled["counts"], "accuracy": attempts["accuracy"]["all"],
            "sound": attempts["verdicts"].get("sound", 0) / attempts["completions"],
            "accepted": int(record["val_accuracy"] > best_accuracy),
        }  # fmt: skip

    def sample(self, step: int) -> Sampled:
        """Attempts, variants of the failed problems, and what a round keeps of the solutions of both."""
        settings, name = self._settings, f"{self._run.name} {step}"
        keys = jax.random.split(jax.random.fold_in(self._run.key, step))
        attempts = self._attempt(self._slice(step), keys[0], f"{name}: attempts")
        failed = weakest_first(attempts)
        variants, refused = make_variants(
            failed, settings.variants_per_round, seed=self._run.seed, step=step, taken=self._taken
        )
        solved = self._attempt(self._fitting(variants), keys[1], f"{name}: variants")
        own, new = (keep(part, per_problem=settings.keep_per_problem) for part in (attempts, solved))
        return {
            "analysis": {"failed": len(failed), "refused": dict(refused), "attempts": analyse(attempts)}
            | {"variants": analyse(solved)},
            "examples": [*examples_of("attempt", attempts), *examples_of("variant", solved)],
            "kept": [*own, *new],
            "counts": {
                "kept": len(own) + len(new), "variants": len(solved), "kept_variants": len(new),
                "sampled_tokens": sum(c.tokens for part in (attempts, solved) for _, row in part for c in row),
            },
        }  # fmt: skip

    def fine_tune(self, step: int) -> Record:
        """Fine-tunes on the round's kept rows and replay; where that is finished already, restores its checkpoint."""
        arm, settings, run = self._arm, self._settings, self._run
        folder = run.scratch / f"{step:02d}"
        own = [
            data.encode_example(question, text, arm.tokenizer, system=arm.system, stop_id=arm.stop_ids[0])
            for question, text in read_json(folder / "sampled.json")["kept"]
        ]
        count = min(len(self._replay), round(len(own) * settings.replay_share / (1 - settings.replay_share)))
        chosen = np.random.default_rng([run.seed, run.number, step]).permutation(len(self._replay))[:count]
        rows = [*own, *(self._replay[i] for i in chosen)]
        part = Run(
            f"{run.name} {step}: training", zlib.crc32(f"{run.seed}:{run.name}:{step}".encode()), run.mesh, run.split,
            folder, Curve(folder / "plot.csv", folder / RECORDS / "curve.csv", sft.COLUMNS),
        )  # fmt: skip
        fitting = [row for row in rows if len(row.tokens) <= settings.training.max_tokens]
        trained = sft.train(arm.model, fitting, [], settings.training, part)
        return {"loss": trained["loss"], "train_tokens": trained["train_tokens"], "replayed": count}

    def validate(self, step: int) -> float:
        """Greedy accuracy on the validation problems."""
        completed = self._complete(
            self._validation, key=self._run.key, sampling=Sampling(greedy=True), generations=1,
            name=f"{self._run.name} {step}: validation",
        )  # fmt: skip
        right = [read(c.text).is_correct(p.answer) for p, (c,) in zip(self._validation, completed, strict=True)]
        return sum(right) / len(right)

    def story(self, step: int) -> list[dict[str, Any]]:
        """A round's analysis and examples, as rows for people to read."""
        sampled: Sampled = read_json(self._run.scratch / f"{step:02d}" / "sampled.json")
        return [
            {"round": step, "kind": "analysis", **sampled["analysis"]},
            *({"round": step, **example} for example in sampled["examples"]),
        ]

    def remove_states(self, *, but: int, until: int) -> None:
        """Removes training states, each as large as three models: only the best round's is ever restored."""
        for step in range(1, until + 1):
            if step != but:
                shutil.rmtree(self._run.scratch / f"{step:02d}" / "state", ignore_errors=True)

    def _attempt(
        self, problems: Sequence[Problem], key: jax.Array, what: str
    ) -> list[tuple[Problem, list[Completion]]]:
        limits = self._settings.rollout
        sampling = Sampling(temperature=limits.temperature, top_k=limits.top_k, top_p=limits.top_p)
        completions = self._complete(
            problems, key=key, sampling=sampling, generations=self._settings.generations, name=what
        )
        return list(zip(problems, completions, strict=True))

    def _slice(self, step: int) -> list[Problem]:
        """The round's problems: rounds go through train in one shuffled order, again and again."""
        count = self._settings.problems_per_round
        chosen = np.take(self._order, range((step - 1) * count, step * count), mode="wrap")
        return [self.problems[i] for i in chosen]

    def _fitting(self, problems: Sequence[Problem]) -> list[Problem]:
        limit = self._settings.rollout.max_prompt_tokens
        return [problem for problem in problems if len(self._complete.ids(problem)) <= limit]


class History:
    """The records of the rounds so far, each in a file of the scratch folder; the start is round 0."""

    def __init__(self, run: Run):
        self._run = run
        self.records: list[Record] = [read_json(path) for path in sorted(run.scratch.glob("*/round.json"))]

    @property
    def best(self) -> int:
        """The last accepted round: its weights are the model's."""
        return max(step for step, record in enumerate(self.records) if record["accepted"])

    def write(self, record: Record) -> None:
        write_json(self._run.scratch / f"{len(self.records):02d}" / "round.json", record)
        self.records.append(record)

    def restart_curve(self) -> None:
        self._run.curve.start(step=-1)
        for step in range(len(self.records)):
            self.add_to_curve(step)

    def add_to_curve(self, step: int) -> None:
        self._run.curve.add(step, {**self.records[step], **self._totals(step + 1)})

    def metrics(self, *, steps_per_round: int) -> dict[str, Any]:
        trained = [record for record in self.records if record["loss"] is not None]
        return {
            "val_accuracy_start": self.records[0]["val_accuracy"],
            "val_accuracy": self.records[self.best]["val_accuracy"],
            "best_round": self.best,
            "rounds": len(self.records) - 1,
            "loss": trained[-1]["loss"] if trained else None,
            "optimizer_steps": len(trained) * steps_per_round,
            **self._totals(len(self.records)),
        }

    def _totals(self, count: int) -> dict[str, int]:
        """Sums over the first rounds, the start included."""
        return {
            "train_tokens": sum(record["train_tokens"] for record in self.records[:count]),
            "sampled_tokens": sum(record["sampled_tokens"] for record in self.records[:count]),
        }


def _weights(model: Model) -> nnx.State:
    """A copy in host memory of what is trained: training writes over the device's."""
    trained = nnx.state(model, nnx.LoRAParam if lora.is_adapted(model) else nnx.Param)
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), trained)
