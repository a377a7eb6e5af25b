"""CAST, the self-teaching loop: a model samples, what it fails at is analysed, and it learns from what it got right.

A round: attempts at a slice of train; their analysis; new problems aimed at what failed (problems.variants); the
model's own solutions of both, kept where they are sound; a small fine-tune on them, with replay of the warm start's
rows against forgetting; accuracy on validation. A round that does not help is thrown away, weights and all, and two in
a row end the loop. No solution is given from outside: gold answers only select.
"""

import shutil
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from showwork import rollout, tunix_adapter
from showwork.config import Cast
from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.problems.variants import question_mark
from showwork.reading.answers import is_correct
from showwork.records import Completion, Problem
from showwork.tokenizer import Tokenizer
from showwork.training import data, sft
from showwork.training.curves import Curve
from showwork.training.selection import analyse, examples_of, keep, make_variants, weakest_first

# Of a round: greedy accuracy on validation after it, whether that was better than before, the training's loss; share of
# right and of sound attempts; solutions kept, variants made, how many of the kept are theirs, rows replayed.
# train_tokens and sampled_tokens, without those of validation, are sums over all rounds so far.
TOTALS = ("train_tokens", "sampled_tokens")
COLUMNS = (
    "val_accuracy", "accepted", "loss", "accuracy", "sound", "kept", "variants", "kept_variants", "replayed", *TOTALS,
)  # fmt: skip
PATIENCE = 2  # rounds in a row that do not help
START = {"accepted": 1, "loss": None, "train_tokens": 0, "sampled_tokens": 0}


def train(
    model: nnx.Module,
    problems: Sequence[Problem],
    validation: Sequence[Problem],
    replay: Sequence[data.Example],
    config: Cast,
    *,
    tokenizer: Tokenizer,
    system: str,
    stop_ids: Sequence[int],
    taken: Collection[str],
    mesh: jax.sharding.Mesh,
    seed: int,
    scratch: Path,
    curve: Curve,
    name: str = "cast",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains the model in place, round by round; returns the stage's metrics and each round's analysis and examples.

    taken are the marks (variants.question_mark, plan_mark) that no new problem may have. Every finished part of a
    round lies in scratch, so that a run that was killed goes on there and ends in the same bytes.
    """
    stage_number = zlib.crc32(name.encode())
    key = jax.random.fold_in(jax.random.key(seed), stage_number)
    limits = config.rollout
    sampling = rollout.Sampling(temperature=limits.temperature, top_k=limits.top_k, top_p=limits.top_p)
    complete = rollout.Completer(
        model, tokenizer, system, stop_ids, max_tokens=limits.max_completion_tokens,
        rows_per_call=limits.rows_per_call, prompt_tokens=limits.max_prompt_tokens,
    )  # fmt: skip

    def that_fit(asked: Sequence[Problem]) -> list[Problem]:
        return [problem for problem in asked if len(complete.ids(problem)) <= limits.max_prompt_tokens]

    fitting, watched = that_fit(problems), that_fit(validation)[: config.validation_problems]
    if not fitting or not watched:
        raise UserError(f"{name}.rollout.max_prompt_tokens {config.rollout.max_prompt_tokens}: no prompt is that short")
    order = np.random.default_rng([seed, stage_number]).permutation(len(fitting))
    taken = {*taken, *map(question_mark, problems), *map(question_mark, validation)}

    def validate(step: int) -> float:
        greedy = rollout.Sampling(greedy=True)
        answers = complete(watched, key=key, sampling=greedy, generations=1, name=f"{name} {step}: validation")
        return sum(is_correct(c.text, p.answer) for p, (c,) in zip(watched, answers, strict=True)) / len(watched)

    def attempt(asked: Sequence[Problem], key: jax.Array, what: str) -> list[tuple[Problem, list[Completion]]]:
        completions = complete(asked, key=key, sampling=sampling, generations=config.generations, name=what)
        return list(zip(asked, completions, strict=True))

    def sample(step: int) -> dict[str, Any]:
        """What a round learns from, and what is known of it."""
        keys = jax.random.split(jax.random.fold_in(key, step))
        first = (step - 1) * config.problems_per_round
        places = np.take(order, range(first, first + config.problems_per_round), mode="wrap")
        attempts = attempt([fitting[i] for i in places], keys[0], f"{name} {step}: attempts")
        failed = weakest_first(attempts)
        variants, refused = make_variants(failed, config.variants_per_round, seed=seed, step=step, taken=taken)
        solved = attempt(that_fit(variants), keys[1], f"{name} {step}: variants")
        own, new = (keep(part, per_problem=config.keep_per_problem) for part in (attempts, solved))
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

    def fine_tune(step: int) -> dict[str, Any]:
        """Trains on what the round kept and some replay; goes to the end at once where the round was trained before."""
        folder = scratch / f"{step:02d}"
        own = [
            data.encode_example(question, text, tokenizer, system=system, stop_id=stop_ids[0])
            for question, text in read_json(folder / "sampled.json")["kept"]
        ]
        count = min(len(replay), round(len(own) * config.replay_share / (1 - config.replay_share)))
        chosen = np.random.default_rng([seed, stage_number, step]).permutation(len(replay))[:count]
        rows = [*own, *(replay[i] for i in chosen)]
        trained = sft.train(
            model, [row for row in rows if len(row.tokens) <= config.training.max_tokens], [], config.training,
            seed=zlib.crc32(f"{seed}:{name}:{step}".encode()), mesh=mesh, checkpoints=folder / "state",
            curve=Curve(folder / "plot.csv", folder / "curve.csv", sft.COLUMNS), name=f"{name} {step}: training",
        )  # fmt: skip
        return {"loss": trained["loss"], "train_tokens": trained["train_tokens"], "replayed": count}

    def run_round(step: int, *, best: float) -> dict[str, Any]:
        """Leaves the model with the round's weights."""
        file = scratch / f"{step:02d}" / "sampled.json"
        if not file.exists():
            write_json(file, sample(step))
        sampled = read_json(file)
        record = {"loss": None, "train_tokens": 0, "replayed": 0, "val_accuracy": best}
        if sampled["kept"]:
            record = {**fine_tune(step), "val_accuracy": validate(step)}
        attempts = sampled["analysis"]["attempts"]
        return {
            **record, **sampled["counts"], "accuracy": attempts["accuracy"]["all"],
            "sound": attempts["verdicts"].get("sound", 0) / attempts["completions"],
            "accepted": int(record["val_accuracy"] > best),
        }  # fmt: skip

    def add_to_curve(step: int) -> None:
        curve.add(step, records[step] | {what: sum(r[what] for r in records[: step + 1]) for what in TOTALS})

    tunix_adapter.place(model, mesh)
    records = [read_json(path) for path in sorted(scratch.glob("*/round.json"))]
    if not records:
        records = [{**START, "val_accuracy": validate(0)}]
        write_json(scratch / "00" / "round.json", records[0])
    curve.start(step=-1)
    for step in range(len(records)):
        add_to_curve(step)
    best = max(step for step, record in enumerate(records) if record["accepted"])
    if best:
        fine_tune(best)
    weights = _weights(model)
    for step in range(len(records), config.rounds + 1):
        if step - best > PATIENCE:
            break
        records.append(run_round(step, best=records[best]["val_accuracy"]))
        if records[step]["accepted"]:
            best, weights = step, _weights(model)
        else:
            nnx.update(model, weights)
            tunix_adapter.place(model, mesh)
        write_json(scratch / f"{step:02d}" / "round.json", records[step])
        add_to_curve(step)
        # Training state is as large as three models: only the best round's is gone back to.
        for old in range(1, step + 1):
            if old != best:
                shutil.rmtree(scratch / f"{old:02d}" / "state", ignore_errors=True)
    trained = [record for record in records if record["loss"] is not None]
    metrics = {
        "val_accuracy_start": records[0]["val_accuracy"],
        "val_accuracy": records[best]["val_accuracy"],
        "best_round": best,
        "rounds": len(records) - 1,
        "loss": trained[-1]["loss"] if trained else None,
        "optimizer_steps": len(trained) * config.training.steps,
        **{what: sum(record[what] for record in records) for what in TOTALS},
        "prompts_too_long": len(problems) - len(fitting),
    }
    return metrics, [row for step in range(1, len(records)) for row in _story(step, scratch)]


def _weights(model: nnx.Module) -> Any:
    """A copy that training, which donates its buffers, leaves alone."""
    return jax.device_get(nnx.state(model, nnx.Param))


def _story(step: int, scratch: Path) -> list[dict[str, Any]]:
    sampled = read_json(scratch / f"{step:02d}" / "sampled.json")
    return [
        {"round": step, "kind": "analysis", **sampled["analysis"]},
        *({"round": step, **example} for example in sampled["examples"]),
    ]
