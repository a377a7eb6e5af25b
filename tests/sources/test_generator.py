"""The embedded generator: GSM8K's row form, true equations, apart splits, the same bytes every time."""

import hashlib
import itertools
import json
import operator
import re
from collections import Counter
from fractions import Fraction
from typing import get_args

import pytest

from showwork.errors import UserError
from showwork.sources import generator
from showwork.sources.generator import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    SEEN_FAMILIES,
    Difficulty,
    beyond,
    drafts,
    generate,
)
from showwork.sources.generator import LEVELS as LEVEL
from showwork.sources.scenarios import FAMILIES as TABLE

LEVELS = get_args(Difficulty)
NOTE = re.compile(r"(\S+) = (\$?)<<([\d.]+)([-+*/])([\d.]+)=(\d+)>>([\d,]+)")
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def numbers(text):
    return {int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?<!,)", text)}


@pytest.fixture(scope="module", params=LEVELS)
def made(request):
    """1,200 train and 300 test drafts of a difficulty."""
    return request.param, {
        split: list(itertools.islice(drafts(seed=3, split=split, difficulty=request.param), rows))
        for split, rows in (("train", 1200), ("test", 300))
    }


def test_every_solution_is_true_and_in_gsm8k_form(made):
    for draft in itertools.chain(*made[1].values()):
        *lines, gold = draft.answer.split("\n")
        for line in lines:
            [(shown, _, left, op, right, result, after)] = NOTE.findall(line)
            assert shown.replace(",", "") == f"{left}{op}{right}"
            assert APPLY[op](Fraction(left), Fraction(right)) == Fraction(result)
            assert after == f"{int(result):,}"
            assert int(result) >= 2
        assert gold == f"#### {after}"
        assert len(lines) == len(draft.plan.equations)


def test_questions_read_as_text(made):
    for draft in itertools.chain(*made[1].values()):
        assert 12 <= len(draft.question.split()) <= 45
        assert re.fullmatch(r"([A-Z\d][^.?{}]*[^ .?{}][.] )+(How|By how|For how) [^.?{}]+\?", draft.question), (
            draft.question
        )
        assert "  " not in draft.question + draft.answer
        assert not re.search(r"[{}]", draft.answer)
        assert 1 not in numbers(draft.question)


def test_every_number_of_a_plan_stands_in_its_question(made):
    for draft in itertools.chain(*made[1].values()):
        assert {n for move in draft.plan.numbers for n in move} <= numbers(draft.question)


def test_a_draw_covers_operations_families_steps_commas_and_spare_facts(made):
    difficulty, splits = made
    rows = splits["train"]
    used = Counter(op for d in rows for _, op, _, _ in d.plan.equations)
    assert all(used[op] > 0.08 * used.total() for op in "+-*/")
    assert {d.plan.family for d in rows} == set(FAMILIES)
    steps = Counter(len(d.plan.equations) for d in rows)
    assert set(steps) == {1, 2, 3, 4}
    if difficulty == "easy":
        assert 0.8 < (steps[1] + steps[2]) / len(rows) < 0.9
    assert 0.03 < sum("," in d.answer.split("####")[1] for d in rows) / len(rows) < 0.6
    used_numbers = [{n for a, _, b, r in d.plan.equations for n in (a, b, r)} for d in rows]
    spare = sum(bool(numbers(d.question) - used) for d, used in zip(rows, used_numbers, strict=True)) / len(rows)
    assert spare == pytest.approx(generator.LEVELS[difficulty].spare, abs=0.05)


def test_easy_is_small(made):
    difficulty, splits = made
    if difficulty == "easy":
        plans = [d.plan for d in splits["train"]]
        assert all(result <= 30 or result % 100 == 0 for plan in plans for *_, result in plan.equations)


def test_no_problem_is_in_both_splits(made):
    train, test = made[1]["train"], made[1]["test"]
    questions = [d.question for d in train + test]
    assert len(set(questions)) == len(questions)
    assert len({d.plan.signature for d in test}) == len(test)
    assert not {d.plan.signature for d in train} & {d.plan.signature for d in test}

    def equations(draft):
        return draft.plan.family, draft.plan.moves, draft.plan.equations

    assert not {equations(d) for d in train} & {equations(d) for d in test}


def test_a_swapped_product_stays_in_its_split():
    one, other = (
        generator.Plan("garden", (0,), ((a, b),), ((a, "*", b, a * b),)) for a, b in itertools.permutations((3, 8))
    )
    assert one.split == other.split


def test_the_vocabulary_is_small():
    text = "".join(d.question + " " + d.answer + " " for level in LEVELS for d in itertools.islice(
        drafts(seed=1, split="train", difficulty=level), 1500
    ))  # fmt: skip
    assert 300 < len(set(re.findall(r"[A-Za-z']+", text))) < 700


def test_more_rows_begin_with_the_same_rows():
    few = generate(seed=5, train_rows=20, test_rows=10, difficulty="medium")
    many = generate(seed=5, train_rows=60, test_rows=40, difficulty="medium")
    assert few == {"train": many["train"][:20], "test": many["test"][:10], "families": [], "numbers": []}
    assert few != generate(seed=6, train_rows=20, test_rows=10, difficulty="medium")


def test_the_bytes_are_pinned():
    rows = generate(seed=0, train_rows=40, test_rows=10, difficulty="easy")
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest == "a480a906f51f30bbef9fd1fee0de5aa7b72c46fbafa43d61b0922a05914fdb4e"


def test_families_can_be_chosen():
    chosen = {d.plan.family for d in itertools.islice(
        drafts(seed=1, split="train", difficulty="easy", families=("tank", "bus")), 60
    )}  # fmt: skip
    assert chosen == {"tank", "bus"}
    one, other = (
        next(drafts(seed=1, split="train", difficulty="easy", families=names))
        for names in (("tank", "bus"), ("bus", "tank"))
    )
    assert one == other


def test_shifted_problems_are_of_kinds_that_train_never_holds():
    rows = generate(seed=3, train_rows=3000, test_rows=0, shifted_rows=200, difficulty="easy")
    assert [len(rows[name]) for name in ("families", "numbers")] == [100, 100]
    held_out = {d.question for d in itertools.islice(
        drafts(seed=3, split="test", difficulty="easy", families=HELD_OUT_FAMILIES), 100
    )}  # fmt: skip
    assert held_out == {row["question"] for row in rows["families"]}
    seen = {d.plan.family for d in itertools.islice(
        drafts(seed=3, split="train", difficulty="easy", families=SEEN_FAMILIES), 500
    )}  # fmt: skip
    assert seen == set(SEEN_FAMILIES)
    assert not seen & set(HELD_OUT_FAMILIES)
    assert len(seen) >= 15


def test_numbers_beyond_begin_where_the_ranges_end():
    easy, further = LEVEL["easy"], beyond(LEVEL["easy"])
    for kind, (low, high) in further.ranges.items():
        assert (low, high) == (easy.ranges[kind][1] + 1, 2 * easy.ranges[kind][1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"difficulty": "extreme"}, "'extreme' is unknown; it is one of easy, medium, hard"),
        ({"train_rows": -1}, "train rows are -1"),
        ({"test_rows": 200_000}, r"no new test problem of 1 steps after \d+ rows.*200000 test rows"),
    ],
)
def test_a_mistake_is_named(changed, message):
    with pytest.raises(UserError, match=message):
        generate(**{"seed": 1, "train_rows": 1, "test_rows": 1, "difficulty": "easy", **changed})


@pytest.mark.parametrize(("families", "message"), [(["zoo"], r"families \['zoo'\].*shopping"), ([], "is empty")])
def test_families_that_are_none(families, message):
    with pytest.raises(UserError, match=message):
        next(drafts(seed=1, split="train", difficulty="easy", families=families))


@pytest.mark.parametrize("family", TABLE.values(), ids=list(TABLE))
def test_the_table_is_sound(family):
    states = {move.target for move in family.moves}
    assert states == set(family.asks)
    assert {move.source for move in family.moves} <= states | {""}
    for move in family.moves:
        names = {name for name, _ in move.slots}
        assert all(set(re.findall(r"\{([ab])\}", fact)) == names for fact in move.facts)
        assert names <= {side for line in move.lines for side in (line.left, line.right)}
        assert all(len(re.findall(r"\{eq\}|\{usd\}", line.text)) == 1 for line in move.lines)
        assert ("v" in {side for line in move.lines for side in (line.left, line.right)}) == bool(move.source)
    assert {line.op for move in family.moves for line in move.lines} == set("+-*/")
    assert all(low >= 2 and low < high and "{d}" in fact for low, high, fact in family.spare)
