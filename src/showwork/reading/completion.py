"""A completion parsed once: scoring, rewards, detectors and the report share one `Reading`."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from showwork.reading.answers import (
    ANSWER_OPEN,
    canonical_number,
    equals_gold,
    extract_answer,
    is_near,
    last_number,
    matches_format,
)
from showwork.reading.arithmetic import FoundEquation, find_equations
from showwork.reading.dual import HEADINGS, Monologue, parse_monologue

_SANITY_CHECK = f"\n{HEADINGS[-1]}"
KEPT = 2048  # cached readings, more than the completions of a step: each reward of an arm reads the same ones


@dataclass(frozen=True)
class Reading:
    """The parts of a completion, each parsed on first use and cached. Linear in the text."""

    text: str

    @cached_property
    def answer(self) -> str | None:
        """The one number of the answer block; see extract_answer."""
        return extract_answer(self.text)

    @cached_property
    def last_number(self) -> str | None:
        """The last number of the text, in the answer block or not; see answers.last_number."""
        return last_number(self.text)

    @cached_property
    def is_formatted(self) -> bool:
        """Whether the text is exactly one reasoning and one answer block; see matches_format."""
        return matches_format(self.text)

    @cached_property
    def sections(self) -> Monologue | None:
        """The monologue's four sections, None if it has another form; see parse_monologue."""
        return parse_monologue(self.text)

    @cached_property
    def work(self) -> str:
        """The text before the answer block."""
        return self.text.partition(ANSWER_OPEN)[0]

    @cached_property
    def equations(self) -> tuple[FoundEquation, ...]:
        """The equations before the answer block, with positions in the text."""
        return tuple(find_equations(self.work))

    @cached_property
    def all_equations(self) -> tuple[FoundEquation, ...]:
        """The equations of the whole text, answer block included."""
        return tuple(find_equations(self.text))

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The results of the equations before the sanity check, in order, as canonical decimals."""
        before, has_check, _ = self.work.partition(_SANITY_CHECK)
        equations = find_equations(before) if has_check else self.equations
        values = (canonical_number(equation.value) for equation in equations)
        return tuple(value for value in values if value is not None)

    def is_correct(self, gold: str) -> bool:
        """Whether the answer is exactly the gold number. Raises ValueError if gold is not a number."""
        return equals_gold(self.answer, gold)

    def is_flexibly_correct(self, gold: str) -> bool:
        """Whether the last number is exactly the gold number. Raises ValueError if gold is not a number."""
        return equals_gold(self.last_number, gold)

    def is_within(self, gold: str, fraction: float) -> bool:
        """Whether the answer is off by at most this fraction of the gold number; see is_near."""
        return is_near(self.answer, gold, fraction)


@lru_cache(maxsize=KEPT)
def read(text: str) -> Reading:
    """The Reading of a text; the last KEPT are cached."""
    return Reading(text)
