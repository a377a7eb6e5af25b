"""Groups of completions of the RL arms, sampled in calls of one shape, so that a run compiles one program."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import jax
import numpy as np

from showwork import rollout
from showwork.config import Rl
from showwork.errors import UserError
from showwork.reading.completion import read
from showwork.records import Completion, Problem
from showwork.sampling import Decoding, Sampling
from showwork.training.arms import LoadedArm


@dataclass(frozen=True)
class Samples:
    """N = B * G completions, those of a problem next to each other."""

    problems: list[Problem]
    """[N], each problem G times."""
    completions: list[Completion]
    generated: rollout.Generated

    @property
    def is_correct(self) -> list[bool]:
        """[N], by the answer alone."""
        return [read(c.text).is_correct(p.answer) for c, p in zip(self.completions, self.problems, strict=True)]


class Sampler:
    """Samples `generations` completions of each of some problems, the prompts all padded to one width."""

    def __init__(self, arm: LoadedArm[Rl], problems: Sequence[Problem], validation: Sequence[Problem], *, name: str):
        """Raises UserError where no problem's prompt is short enough; validation problems may be of any length."""
        limits = arm.settings.rollout
        self._arm = arm
        self._prompts = {
            p.id: arm.tokenizer.prompt_ids(p.question, system=arm.system) for p in (*problems, *validation)
        }
        self.problems = [p for p in problems if len(self._prompts[p.id]) <= limits.max_prompt_tokens]
        """Those that fit."""
        if not self.problems:
            raise UserError(f"{name}.rollout.max_prompt_tokens {limits.max_prompt_tokens}: no prompt is that short")
        self.widest = max(len(self._prompts[p.id]) for p in (*self.problems, *validation))
        """Tokens of the longest prompt."""
        self._prompts_per_call = limits.rows_per_call // arm.settings.generations
        self._decoding = Decoding(
            Sampling(temperature=limits.temperature, top_k=limits.top_k, top_p=limits.top_p),
            limits.max_completion_tokens, tuple(arm.stop_ids), arm.tokenizer.pad_id(),
        )  # fmt: skip

    def __call__(self, problems: Sequence[Problem], *, key: jax.Array) -> Samples:
        """Deterministic in the weights and the key, which decides the noise of each row by its number."""
        generations, per_call = self._arm.settings.generations, self._prompts_per_call
        prompts = [self._prompts[problem.id] for problem in problems]
        prompts += [[self._arm.tokenizer.bos_id()]] * (-len(prompts) % per_call)  # fills up the last call
        parts = [
            rollout.generate(
                self._arm.model,
                rollout.left_pad(prompts[first : first + per_call], pad_id=self._decoding.pad_id, width=self.widest),
                key=key, decoding=self._decoding, generations=generations, first_row=first * generations,
                slots=rollout.Slots(mesh=self._arm.rollout_mesh),
            )
            for first in range(0, len(prompts), per_call)
        ]  # fmt: skip
        count = len(problems) * generations
        generated = rollout.Generated(
            *(np.concatenate([getattr(part, f.name) for part in parts])[:count] for f in fields(rollout.Generated))
        )
        return Samples(
            [problem for problem in problems for _ in range(generations)],
            generated.completions(self._arm.tokenizer, self._arm.stop_ids),
            generated,
        )
