"""Answer extraction, shared by cleaning, rewards and evaluation.

Numbers are compared as canonical decimal strings: "$1,080.00", "1,080" and "1080" are all "1080".
"""

import re
from enum import StrEnum
from fractions import Fraction

from showwork.reading.expressions import CURRENCIES, MAX_DIGITS, VULGAR_FRACTIONS, BadExpression, evaluate

REASONING_OPEN = "<reasoning>"
REASONING_CLOSE = "</reasoning>"
ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"
TAGS = (REASONING_OPEN, REASONING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
FINAL_ANSWER = "####"  # GSM8K's mark before the gold answer
MAX_ANSWER_LENGTH = 200  # characters between the answer tags


class Reason(StrEnum):
    """Reasons for rejecting a row; a closed list."""

    BROKEN_JSON = "broken_json"
    NOT_UTF8 = "not_utf8"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    NOT_TEXT = "not_text"
    EMPTY_FIELD = "empty_field"
    TOO_LONG = "too_long"
    CONTROL_CHARACTER = "control_character"
    RESERVED_TAG = "reserved_tag"
    NO_FINAL_ANSWER = "no_final_answer"
    SEVERAL_FINAL_ANSWERS = "several_final_answers"
    ANSWER_NOT_A_NUMBER = "answer_not_a_number"
    UNBALANCED_ANNOTATION = "unbalanced_annotation"
    ANNOTATION_DOES_NOT_COMPUTE = "annotation_does_not_compute"
    LEAK = "leak"


class RowError(ValueError):
    """A row that can't be used, with its Reason and a detail for the reader."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


_VULGAR = "".join(VULGAR_FRACTIONS)
_PLAIN = re.compile(rf"-?[1-9][0-9]{{0,{MAX_DIGITS - 1}}}|0")
_NUMBER = re.compile(
    rf"(?P<sign>[-+−–]?)\s?[{CURRENCIES}]?\s?(?P<second_sign>[-−–]?)"
    r"(?:(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]*)(?:\.(?P<decimals>[0-9]*))?"
    rf"|(?P<fraction>(?:[0-9]+ )?[0-9]+/[0-9]+|[0-9]* ?[{_VULGAR}]))"
    rf"\s?[%{CURRENCIES}]?"
)
_MIXED = rf"[0-9]{{1,9}} [1-9][0-9]{{0,2}}/[0-9]{{1,3}}(?![0-9.,/])|[0-9]{{1,9}} ?[{_VULGAR}]"
# A sign counts unless it joins the digits to a word or a number ("B-2", "12-13"), or is a dash apart from them.
_CHUNK = re.compile(
    rf"(?:(?<![^\W_])[-−–])?[{CURRENCIES}]?\s?(?:(?<![^\W_])[-−–])?(?:{_MIXED}|[{_VULGAR}]|\.?[0-9][0-9.,/]*)"
)

# A number of last_number: the pattern of "flexible-extract", the filter of the task gsm8k (version 3) of
# EleutherAI/lm-evaluation-harness.
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def canonical_number(text: str) -> str | None:
    """The exact decimal of a text, such as "1080", "-3" or "0.5"; None unless it is one number.

    A percent sign is dropped: "50%" is "50". A fraction needs a finite decimal: "1/2" is "0.5", "1/3" is None.
    Commas must separate thousands; no exponents; at most 30 digits.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return text
    match = _NUMBER.fullmatch(text) if len(text) <= 2 * MAX_DIGITS else None
    if match is None or (match["sign"] and match["second_sign"]):
        return None
    sign = "-" if (match["sign"] or match["second_sign"] or "+") != "+" else ""
    if match["fraction"]:
        try:
            return decimal_string(evaluate(sign + match["fraction"]))
        except BadExpression:
            return None
    whole, decimals = match["whole"].replace(",", ""), match["decimals"] or ""
    if not whole + decimals or len(whole + decimals) > MAX_DIGITS:
        return None
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    number = f"{whole}.{decimals}" if decimals else whole
    return number if number == "0" else sign + number


def decimal_string(value: Fraction) -> str | None:
    """The canonical decimal of an exact value; None if it has no finite decimal within 30 digits."""
    decimals = 0
    while value.denominator != 1 and 10**decimals % value.denominator and decimals < MAX_DIGITS:
        decimals += 1
    if 10**decimals % value.denominator or abs(value) >= 10**MAX_DIGITS:
        return None
    digits = str(abs(value.numerator) * 10**decimals // value.denominator).rjust(decimals + 1, "0")
    text = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    return f"-{text}" if value < 0 else text


def exact_decimal(value: Fraction) -> str:
    """decimal_string, raising ValueError for a number that has none."""
    text = decimal_string(value)
    if text is None:
        raise ValueError(f"{value} is no finite decimal")
    return text


def extract_answer(completion: str) -> str | None:
    """The canonical number in the completion's answer block; None unless there is exactly one.

    Each answer tag must occur once, in order, and not inside an open <reasoning>. The block must hold one number;
    currency, percent, units and words around it are ignored ("72 clips" is 72, "12 or 13" is None). Linear in the
    completion.
    """
    if completion.count(ANSWER_OPEN) != 1 or completion.count(ANSWER_CLOSE) != 1:
        return None
    start, end = completion.find(ANSWER_OPEN), completion.find(ANSWER_CLOSE)
    if end < start or completion.rfind(REASONING_OPEN, 0, start) > completion.rfind(REASONING_CLOSE, 0, start):
        return None
    inside = completion[start + len(ANSWER_OPEN) : end].strip()
    if len(inside) > MAX_ANSWER_LENGTH or any(tag in inside for tag in TAGS):
        return None
    number = canonical_number(inside)
    if number is not None:
        return number
    chunks = _CHUNK.findall(inside)
    # Digits that _CHUNK doesn't read, such as "²" or "５", would change the number.
    rest = _CHUNK.sub("", inside)
    if len(chunks) != 1 or "^" in rest or any(c.isnumeric() for c in rest):
        return None
    return canonical_number(chunks[0].rstrip(".,/"))


def last_number(text: str) -> str | None:
    """The last number of a text as a canonical decimal, whatever is around it; None without one.

    This is what lm-evaluation-harness counts on GSM8K as "flexible-extract". A number is a run of digits, dots, commas
    and dollar signs; then commas, dollar signs and a dot at its end are dropped. A hyphen before it is its sign, so
    "10-5" ends in -5. Two things differ: a run without a digit, such as "...", is no number, and a number is a decimal,
    so that 18.00 and "18..." are 18 too. What it counts as right is right here, and a little more. A last run that is
    no decimal ("1.2.3") gives None. Linear in the text.
    """
    runs = [run for run in _FLEXIBLE.findall(text) if any(character.isdigit() for character in run)]
    return canonical_number(runs[-1].replace(",", "").replace("$", "").rstrip(".")) if runs else None


def matches_format(completion: str) -> bool:
    """Whether the whole text is <reasoning>…</reasoning><answer>…</answer>, both non-empty, each tag once.

    Only whitespace may be between the two blocks and at the end.
    """
    if any(completion.count(tag) != 1 for tag in TAGS) or not completion.startswith(REASONING_OPEN):
        return False
    reasoning, _, rest = completion[len(REASONING_OPEN) :].partition(REASONING_CLOSE)
    rest = rest.strip()
    answer = rest[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]
    is_wrapped = rest.startswith(ANSWER_OPEN) and rest.endswith(ANSWER_CLOSE)
    return is_wrapped and bool(reasoning.strip()) and bool(answer.strip())


def is_correct(completion: str, gold: str) -> bool:
    """Whether the completion's answer is exactly the gold number. Raises ValueError if gold is not a number."""
    return equals_gold(extract_answer(completion), gold)


def equals_gold(answer: str | None, gold: str) -> bool:
    """Whether a canonical number (None: no answer) is the gold number. Raises ValueError if gold is not a number."""
    return answer == _gold(gold)


def is_near(answer: str | None, gold: str, fraction: float) -> bool:
    """Whether the answer is off by at most this fraction of the gold number; only 0 is near a gold 0.

    Raises ValueError if gold is not a number.
    """
    target = Fraction(_gold(gold))
    # repr, so that 0.1 is exactly one tenth and not the nearest binary number.
    return answer is not None and abs(Fraction(answer) - target) <= Fraction(repr(fraction)) * abs(target)


def _gold(gold: str) -> str:
    number = canonical_number(gold)
    if number is None:
        raise ValueError(f"the gold answer {gold!r} is no number")
    return number


def gold_answer(answer: str) -> str:
    """The canonical number after the one `####` of a solution. Raises RowError unless there is exactly one."""
    marks = answer.count(FINAL_ANSWER)
    if marks != 1:
        reason = Reason.SEVERAL_FINAL_ANSWERS if marks else Reason.NO_FINAL_ANSWER
        raise RowError(reason, f"{marks} marks {FINAL_ANSWER}; there must be one")
    written = answer.partition(FINAL_ANSWER)[2].strip()
    number = canonical_number(written)
    if number is None:
        raise RowError(Reason.ANSWER_NOT_A_NUMBER, f"{written[:80]!r} after {FINAL_ANSWER} is no number")
    return number


def render_completion(reasoning: str, answer: str) -> str:
    """The target completion: reasoning and answer in their tags."""
    return f"{REASONING_OPEN}\n{reasoning}\n{REASONING_CLOSE}\n{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"
