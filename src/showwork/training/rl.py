"""The RL arms: sample groups of completions, score them, assign credit, update the policy, validate."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from showwork.config import Rl
from showwork.files import read_jsonl, write_jsonl
from showwork.progress import Steps
from showwork.records import Problem
from showwork.training import credit, optimizer
from showwork.training.arms import LoadedArm
from showwork.training.logps import completion_logps
from showwork.training.losses import Loss, Objective, Rows, policy_loss
from showwork.training.packing import Packer
from showwork.training.passes import in_passes
from showwork.training.run import Run
from showwork.training.samples import Sampler, Samples
from showwork.tunix_adapter.groups import GroupTrainer


def columns(settings: Rl) -> tuple[str, ...]:
    """The curve's columns: rewards first, then what explains them."""
    return (
        "reward", *(f"reward_{name}" for name in settings.rewards), "accuracy", "val_reward", "val_accuracy",
        "zero_variance", "completion_tokens", "truncated", "entropy", "kl", "clip_fraction", "learning_rate",
        "train_tokens", "sampled_tokens",
    )  # fmt: skip


def train(arm: LoadedArm[Rl], problems: Sequence[Problem], validation: Sequence[Problem], run: Run) -> dict[str, Any]:
    """Trains the policy in place, from the newest state if there is one; returns the stage's metrics."""
    settings, curve = arm.settings, run.curve
    generations = settings.generations
    training_key, validation_key = jax.random.fold_in(run.key, 0), jax.random.fold_in(run.key, 1)
    sample = Sampler(arm, problems, validation, name=run.name)
    pack = Packer(settings, widest=sample.widest, pad_id=arm.tokenizer.pad_id(), split=run.split)
    validate = Validation(settings, validation, sample, run, key=validation_key)
    rates = optimizer.learning_rates(settings.optimizer, steps=settings.steps * settings.iterations)
    trainer = build_trainer(arm, run)
    done = trainer.steps_done
    order = problem_order(len(sample.problems), settings.prompts_per_step, seed=run.seed, first=done)

    curve.start(step=done)
    with Steps(run.name, settings.steps) as bar:
        bar.update(done)
        validate(done)
        for step in range(done + 1, settings.steps + 1):
            asked = [sample.problems[i] for i in next(order)]
            samples = sample(asked, key=jax.random.fold_in(training_key, step - 1))
            scores = credit.score(settings.rewards, samples.completions, samples.problems)
            advantages = credit.group_advantages(scores.total, generations=generations, kind=settings.advantage)
            rows = pack(samples.generated, advantages)
            auxes = trainer.update(earlier_logps(arm, rows, run))

            sampled_tokens = int(samples.generated.lengths.sum())
            values = {
                **sample_statistics(samples, scores, generations=generations),
                "sampled_tokens": int(curve.last("sampled_tokens")) + sampled_tokens,
                "train_tokens": int(curve.last("train_tokens")) + sampled_tokens * settings.iterations,
                **update_statistics(auxes),
                "learning_rate": float(np.asarray(rates(step * settings.iterations))),
            }
            curve.add(step, values)
            bar.update(step, f"reward {values['reward']:.3f}  accuracy {values['accuracy']:.3f}")
            validate(step)
            if step % settings.checkpoint_every_steps == 0:
                trainer.save()  # after the record, which is then never behind the weights
        trainer.close()
    return {
        "reward": curve.last("reward"),
        "val_reward": curve.last("val_reward"),
        "optimizer_steps": settings.steps * settings.iterations,
        "train_tokens": int(curve.last("train_tokens")),
        "sampled_tokens": int(curve.last("sampled_tokens")),
        "prompts_too_long": len(problems) - len(sample.problems),
    }


def problem_order(count: int, batch: int, *, seed: int, first: int) -> Iterator[np.ndarray]:
    """Batches of problem numbers without end: each epoch is a permutation that (seed, epoch) alone decides."""
    position, epoch, order = first * batch, -1, np.array([], int)
    while True:
        index = np.empty(batch, int)
        for i in range(batch):
            if position // count != epoch:
                epoch = position // count
                order = np.random.default_rng([seed, epoch]).permutation(count)
            index[i] = order[position % count]
            position += 1
        yield index


def build_trainer(arm: LoadedArm[Rl], run: Run) -> GroupTrainer:
    """The trainer of the arm's model, at its newest state."""
    settings = arm.settings
    return GroupTrainer(
        arm.model, optimizer.build(settings.optimizer, steps=settings.steps * settings.iterations), settings,
        loss=in_passes(loss_of(settings), split=run.split, wrt=nnx.LoRAParam if settings.adapter else nnx.Param),
        mesh=run.mesh, state=run.state,
    )  # fmt: skip


def earlier_logps(arm: LoadedArm[Rl], rows: Rows, run: Run) -> Rows:
    """The rows with their log-probabilities [N, L] before the update: the policy's, where more than one iteration
    follows, and the reference's, where there is a KL term."""
    loss = loss_of(arm.settings)
    if arm.settings.iterations > 1:
        rows = rows._replace(old_logps=completion_logps(arm.model, rows, loss=loss, split=run.split, mesh=run.mesh))
    if arm.settings.beta:
        assert arm.reference is not None
        reference = completion_logps(arm.reference, rows, loss=loss, split=run.split, mesh=run.mesh)
        rows = rows._replace(reference_logps=reference)
    return rows


def loss_of(settings: Rl) -> Loss:
    """losses.policy_loss with the arm's constants."""
    return policy_loss(
        Objective(settings.beta, settings.epsilon_low, settings.epsilon_high, settings.rollout.temperature)
    )


def sample_statistics(samples: Samples, scores: credit.Scores, *, generations: int) -> dict[str, float]:
    """Means of a step over its completions; zero_variance is the share of groups without a gradient."""
    return {
        **{f"reward_{name}": float(values.mean()) for name, values in scores.each.items()},
        "reward": float(scores.total.mean()),
        "accuracy": float(np.mean(samples.is_correct)),
        "zero_variance": float(np.mean(~credit.has_variance(scores.total, generations=generations))),
        "completion_tokens": float(samples.generated.lengths.mean()),
        "truncated": float(samples.generated.is_truncated.mean()),
    }


def update_statistics(auxes: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float | None]:
    """Means of a step over its completion tokens, in all iterations; kl is None without a reference."""
    tokens = sum(float(aux["tokens"]) for aux in auxes)
    mean = {name: sum(float(aux[name]) for aux in auxes) / max(1.0, tokens) for name in auxes[0]}
    return {"entropy": mean["entropy"], "kl": mean.get("kl"), "clip_fraction": mean["clipped"]}


class Validation:
    """Samples the validation problems at every validate_every_steps, and at the start, the middle and the end.

    Then a few completions are also kept, to be watched: in the scratch folder, a file a step.
    """

    def __init__(self, settings: Rl, problems: Sequence[Problem], sample: Sampler, run: Run, *, key: jax.Array):
        self._settings, self._problems, self._sample, self._run, self._key = settings, problems, sample, run, key
        self._watched_steps = (0, settings.steps // 2, settings.steps)

    def __call__(self, step: int) -> None:
        is_due = step % self._settings.validate_every_steps == 0 or step in self._watched_steps
        if not self._problems or not is_due:
            return
        samples = self._sample(self._problems, key=self._key)
        scores = credit.score(self._settings.rewards, samples.completions, samples.problems)
        values = {"val_reward": float(scores.total.mean()), "val_accuracy": float(np.mean(samples.is_correct))}
        self._run.curve.add(step, values)
        if step in self._watched_steps:
            write_jsonl(watched_folder(self._run) / f"{step:06d}.jsonl", self._watched_rows(step, samples, scores))

    def _watched_rows(self, step: int, samples: Samples, scores: credit.Scores) -> Iterator[dict[str, Any]]:
        """The first completion of each watched problem."""
        is_correct = samples.is_correct
        for i in range(0, self._settings.watched_problems * self._settings.generations, self._settings.generations):
            problem, completion = samples.problems[i], samples.completions[i]
            yield {
                "step": step, "id": problem.id, "gold": problem.answer, "completion": completion.text,
                "correct": is_correct[i], **{name: float(values[i]) for name, values in scores.each.items()},
            }  # fmt: skip


def watched_folder(run: Run) -> Path:
    return run.records / "watched"


def collect_watched(run: Run) -> list[dict[str, Any]]:
    """What the policy wrote for the watched problems, in the order of the steps."""
    return [row for path in sorted(watched_folder(run).glob("*.jsonl")) for row in read_jsonl(path)]
