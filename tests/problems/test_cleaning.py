"""Cleaning: every line becomes a problem or a reject with a reason, nothing is lost."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.problems.cleaning import REASONS, CleanResult, clean_lines, gold_rejects, reject_leaks
from showwork.records import Equation, Problem

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k"
GOOD = {"question": "Tom has 5 apples and gets 3. How many has he?", "answer": "He has <<5+3=8>>8 apples.\n#### 8"}


def line(**changes: object) -> bytes:
    return json.dumps(GOOD | changes, ensure_ascii=False).encode() + b"\n"


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode() + b"\n"


def clean(*lines: bytes, style: str = "readable") -> CleanResult:
    return clean_lines(lines, split="train", annotation_style=style)


def digest(question: str, answer: str) -> str:
    return hashlib.sha256(f"{question}\0{answer}".encode()).hexdigest()[:10]


def test_a_good_row() -> None:
    result = clean(line())
    assert result.problems == [
        Problem(
            id=f"train-{digest(GOOD['question'], '8')}",
            question=GOOD["question"],
            reasoning="He has 5+3=8 apples.",
            answer="8",
            equations=(Equation("5+3", "8"),),
        )
    ]
    assert (result.read, result.rejected, result.equations, result.equations_rounded) == (1, [], 1, 0)
    assert gold_rejects(result.problems) == []


@pytest.mark.parametrize(
    ("style", "reasoning"),
    [("readable", "He has 5+3=8 apples."), ("parenthesis", "He has (5+3=8)8 apples."), ("drop", "He has 8 apples.")],
)
def test_styles(style: str, reasoning: str) -> None:
    assert clean(line(), style=style).problems[0].reasoning == reasoning


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"question": "a", "answer": \n', "broken_json"),
        (b"{'question': 'a'}\n", "broken_json"),
        (b"[" * 100_000 + b"\n", "broken_json"),
        (b'{"question": ' + b"1" * 5000 + b"}\n", "broken_json"),
        (b'{"question": "a\x00b", "answer": "#### 8"}\n', "broken_json"),
        (line().replace(b"Tom", b"T\xffm"), "not_utf8"),
        (json.dumps(GOOD).encode("utf-16"), "not_utf8"),
        (b"[1, 2]\n", "not_an_object"),
        (b"null\n", "not_an_object"),
        (b"8\n", "not_an_object"),
        (without("question"), "missing_field"),
        (without("answer"), "missing_field"),
        (b"{}\n", "missing_field"),
        (line(question=8), "not_text"),
        (line(answer=None), "not_text"),
        (line(answer=["#### 8"]), "not_text"),
        (line(question=""), "empty_field"),
        (line(question=" \n"), "empty_field"),
        (line(answer=""), "empty_field"),
        (line(answer="#### 8"), "empty_field"),
        (line(question="a" * 20_001), "too_long"),
        (line(answer="a" * 1_000_000 + "#### 8"), "too_long"),
        (line(question="a\x00b"), "control_character"),
        (line(question="a\x1bb"), "control_character"),
        (b'{"question": "a\\ud800b", "answer": "5+3=8 #### 8"}\n', "control_character"),
        (line(question="<answer>8</answer>?"), "reserved_tag"),
        (line(answer="It is 8.<end_of_turn>\n#### 8"), "reserved_tag"),
        (line(answer="He has 8."), "no_final_answer"),
        (line(answer="8\n#### 8\n#### 8"), "several_final_answers"),
        (line(answer="8\n#### eight"), "answer_not_a_number"),
        (line(answer="8\n#### 1,08"), "answer_not_a_number"),
        (line(answer="<<5+3=8 8\n#### 8"), "unbalanced_annotation"),
        (line(answer="5+3=8>>8\n#### 8"), "unbalanced_annotation"),
        (line(answer="<<5+apples=8>>8\n#### 8"), "annotation_does_not_compute"),
        (line(answer="<<5+3=9>>9\n#### 9"), "annotation_does_not_compute"),
        (b"\n", "broken_json"),
    ],
)
def test_a_bad_row_is_rejected_by_name_and_the_others_go_on(raw: bytes, reason: str) -> None:
    result = clean(line(), raw, line())
    assert list(result.rows.values()) == [1, 3]
    (reject,) = result.rejected
    assert list(reject) == ["split", "row", "reason", "detail", "original"]
    assert (reject["split"], reject["row"], reject["reason"]) == ("train", 2, reason)
    assert reject["detail"]
    assert result.read == 3
    assert result.reasons() == {reason: 1}
    # The original can be written and read back exactly, if it is text.
    original = json.loads(json.dumps(reject, ensure_ascii=False).encode())["original"]
    if reason != "not_utf8":
        assert original.encode() == raw.rstrip(b"\n")


def test_a_byte_order_mark_and_crlf_are_accepted() -> None:
    result = clean(b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n"))
    assert len(result.problems) == 2
    assert clean(line(answer="<<5+3=8>>8\r\nso\r\n#### 8\r\n")).problems[0].reasoning == "5+3=8\nso"


def test_blank_lines_at_the_end_count_as_nothing() -> None:
    result = clean(line(), b"\n", b" \r\n")
    assert (result.read, len(result.problems), result.rejected) == (1, 1, [])
    between = clean(line(), b"\n", b"\n", line(), b"\n")
    assert [row["row"] for row in between.rejected] == [2, 3]
    assert between.read == 4
    assert clean().read == 0


def test_a_last_line_without_a_newline() -> None:
    assert len(clean(line(), line().rstrip(b"\n")).problems) == 2


def test_the_longest_field_is_accepted() -> None:
    assert len(clean(line(question="a" * 20_000)).problems) == 1


def test_rounded_results_are_known_as_such() -> None:
    result = clean(line(answer="10/3 = <<10/3=3.33>>3.33\n#### 3.33"))
    assert result.problems[0].equations == (Equation("10/3", "3.33", rounded=True),)
    assert result.equations_rounded == 1


def test_a_comma_answer_is_canonical_and_accepted() -> None:
    result = clean(line(answer="It is <<1000+80=1080>>1,080.\n#### 1,080"))
    assert result.problems[0].answer == "1080"
    assert gold_rejects(result.problems) == []


def test_a_question_keeps_its_id_in_another_row_and_another_file() -> None:
    other = line(question="Another?")
    apples, another = (problem.id for problem in clean(line(), other).problems)
    assert [problem.id for problem in clean(other, b"broken\n", line()).problems] == [another, apples]
    # In the same row: another question, or the same with another answer.
    assert len({apples, another, clean(line(answer="<<5+4=9>>\n#### 9")).problems[0].id}) == 3
    # White space around a question and how a solution is worded are no part of it, nor is how the answer is written.
    assert clean(line(question=f" {GOOD['question']}\r\n", answer="So 8.\n#### 8.0")).problems[0].id == apples
    (test,) = clean_lines([line()], split="test", annotation_style="drop").problems
    assert test.id.removeprefix("test") == apples.removeprefix("train")


def test_exact_repeats_are_numbered() -> None:
    apples = f"train-{digest(GOOD['question'], '8')}"
    result = clean(line(), line(answer="8"), line(), line(question="Another?"), line())
    ids = [problem.id for problem in result.problems]
    assert [ids[0], ids[1], ids[3]] == [apples, f"{apples}-2", f"{apples}-3"]
    assert [result.rows[identifier] for identifier in ids] == [1, 3, 4, 5]


def test_gold_rejects_names_what_the_scorer_does_not_accept() -> None:
    good = Problem("a", "q", "r", "8", ())
    wrong = [
        Problem("b", "q", " ", "8", ()),
        Problem("c", "q", "r", "8.0", ()),
        Problem("d", "q", "r", "eight", ()),
        Problem("e", "q", "so <answer>8</answer>", "8", ()),
    ]
    assert gold_rejects([good, *wrong]) == ["b", "c", "d", "e"]


def test_leaks_move_to_the_rejects() -> None:
    result = clean(line(), line(answer="8"), line(question="Another?"))
    first, second = result.problems
    after = reject_leaks(result, {second.id: "the same question as test-1"}, split="train")
    assert after.problems == [first]
    assert [(row["row"], row["reason"]) for row in after.rejected] == [(2, "no_final_answer"), (3, "leak")]
    assert json.loads(after.rejected[1]["original"])["question"] == "Another?"
    assert len(after.problems) + len(after.rejected) == after.read == 3


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(line()), st.just(b"\n")), max_size=8))
def test_nothing_is_lost_whatever_comes(lines: list[bytes]) -> None:
    result = clean(*lines)
    assert len(result.problems) + len(result.rejected) == result.read
    kept = {result.rows[problem.id] for problem in result.problems} | {row["row"] for row in result.rejected}
    lost = [raw for row, raw in enumerate(lines, start=1) if row not in kept]
    assert not any(raw.strip() for raw in lost if raw != b"\xef\xbb\xbf")
    assert {row["reason"] for row in result.rejected} <= {str(reason) for reason in REASONS}
    json.dumps(result.rejected, ensure_ascii=False).encode()


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not here")
@pytest.mark.parametrize("style", ["readable", "parenthesis"])
def test_gsm8k_is_read_whole(style: str) -> None:
    with (GSM8K / "train.jsonl").open("rb") as lines:
        result = clean_lines(lines, split="train", annotation_style=style)
    assert (result.read, len(result.problems), result.rejected) == (7473, 7473, [])
    assert result.equations == 23_716
    assert not any("<<" in problem.reasoning or "####" in problem.reasoning for problem in result.problems)
    assert gold_rejects(result.problems) == []
    commas = [line for line in result.originals.values() if "," in json.loads(line)["answer"].rpartition("####")[2]]
    assert len(commas) == 79
