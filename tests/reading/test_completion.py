"""A completion parsed once: each part equals the result of its own parser."""

from hypothesis import given
from hypothesis import strategies as st

from showwork.reading import completion
from showwork.reading.answers import (
    ANSWER_OPEN,
    TAGS,
    canonical_number,
    extract_answer,
    is_correct,
    matches_format,
    render_completion,
)
from showwork.reading.arithmetic import find_equations
from showwork.reading.completion import Reading, read
from showwork.reading.dual import CALC, HEADINGS, parse_monologue

DUAL = render_completion(
    "Plan: multiply, then add\nReasoning: It costs 7*6 = $42.\nEvidence:\nCALC: 7*6 = 42\nCALC: 42+4 = 46\n"
    "Sanity_check: 46-4 = 42",
    "46",
)
words = st.sampled_from([*TAGS, *(f"\n{heading}" for heading in HEADINGS), f"\n{CALC}", "7*6 = 42", "42+4 = 46 = 40+6"])
texts = st.lists(words | st.text(max_size=3)).map("".join) | st.text()


def test_the_parts_of_a_dual_stream():
    found = read(DUAL)
    assert (found.answer, found.is_formatted) == ("46", True)
    assert found.sections == parse_monologue(DUAL)
    assert [equation.value for equation in found.equations] == ["42", "42", "46", "42"]
    assert found.results == ("42", "42", "46")  # not the sanity check's
    assert found.work + "<answer>46</answer>" == DUAL
    assert found.is_correct("46")
    assert not found.is_correct("47")
    assert found.is_within("45", 0.1)


def test_equations_of_the_answer_block_are_not_of_the_work():
    found = read(render_completion("7*6 = 42", "42 + 4 = 46"))
    assert [equation.expression for equation in found.equations] == ["7*6"]
    assert [equation.expression for equation in found.all_equations] == ["7*6", "42+4"]


def test_what_is_no_solution_has_no_parts():
    found = read("I don't know")
    assert (found.answer, found.is_formatted, found.sections) == (None, False, None)
    assert (found.equations, found.results, found.work) == ((), (), "I don't know")


@given(text=texts)
def test_each_part_is_that_of_its_reader(text):
    found = Reading(text)
    work = text.partition(ANSWER_OPEN)[0]
    assert found.answer == extract_answer(text)
    assert found.is_formatted == matches_format(text)
    assert found.sections == parse_monologue(text)
    assert list(found.equations) == find_equations(work)
    assert all(text[e.start : e.end] == work[e.start : e.end] for e in found.equations)
    assert list(found.all_equations) == find_equations(text)
    before_check = find_equations(work.partition("\nSanity_check:")[0])
    assert list(found.results) == [value for e in before_check if (value := canonical_number(e.value)) is not None]
    assert found.is_correct("46") == is_correct(text, "46")


def test_each_part_is_parsed_once(monkeypatch):
    """Two rewards and a detector read the same completion."""
    calls = []
    for name in ("find_equations", "extract_answer", "matches_format", "parse_monologue"):
        parse = getattr(completion, name)
        monkeypatch.setattr(completion, name, lambda text, name=name, parse=parse: calls.append(name) or parse(text))
    read.cache_clear()
    for _ in range(3):
        found = read(render_completion("7*6 = 42", "42"))
        assert (found.answer, found.is_formatted, found.sections, len(found.equations)) == ("42", True, None, 1)
        assert found.results == ("42",)
    assert sorted(calls) == ["extract_answer", "find_equations", "matches_format", "parse_monologue"]
