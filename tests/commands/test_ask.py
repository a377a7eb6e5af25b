"""showwork ask: streams the evaluation's tokens, separates reasoning and answer, and checks each claim."""

import io
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from showwork import cli, config, presets, rollout, tokenizer
from showwork.commands import ask
from showwork.errors import UserError
from showwork.models import checkpoints, saving
from showwork.models.specs import MODELS
from showwork.prompts import render_prompt
from showwork.reading.completion import read
from showwork.tunix_adapter import gemma, parameters

PLAIN = "<reasoning>\n7*6 = 42\n42+4 = 47\n</reasoning>\n<answer>46</answer>"
DUAL = (
    "<reasoning>\nPlan: multiply, then add\nReasoning: The muffins cost 7*6 = $42.\nEvidence:\nCALC: 7*6 = 42\n"
    "CALC: 42+4 = 46\nSanity_check: 46-4 = 42\n</reasoning>\n<answer>46</answer>"
)


def marks(text: str, *, is_whole: bool = True, has_sections: bool = False) -> dict[str, str]:
    """Text of a check → its mark."""
    return {said: mark for (mark, _), said in ask.check(read(text), is_whole=is_whole, has_sections=has_sections)}


def shown(text: str, *, has_sections: bool) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(ask.render(read(text), is_whole=True, has_sections=has_sections))
    return console.file.getvalue()


# ------------------------------------------------------------------------------------------------ what is checked


def test_each_equation_of_a_plain_arm_is_true_or_false() -> None:
    assert marks(PLAIN) == {
        "it ended by itself": "✓",
        "reasoning and answer, each once, and no more": "✓",
        "one number: 46": "✓",
        "7*6 = 42": "✓",
        "42+4 = 47 is false": "✗",
    }


def test_a_dual_stream_is_judged_by_its_sections_and_calc_lines() -> None:
    found = marks(DUAL, has_sections=True)
    assert set(found.values()) == {"✓"}
    assert {"all four sections, in order", "CALC: 7*6 = 42", "the answer is the monologue's last result"} <= set(found)
    wrong = marks(DUAL.replace("42+4 = 46", "42+4 = 47"), has_sections=True)
    assert wrong["CALC: 42+4 = 47 is false"] == "✗"
    assert wrong["the monologue's last result is 47"] == "✗"
    # Outside of Evidence too: a model may write 7*6 = 40 and calculate 42.
    wrong = marks(DUAL.replace("cost 7*6 = $42", "cost 7*6 = $40").replace("46-4 = 42", "46-4 = 41"), has_sections=True)
    bad = {said for said, mark in wrong.items() if mark == "✗"}
    assert bad == {"Reasoning: 7*6 = 40 is false", "Sanity_check: 46-4 = 41 is false"}
    assert marks(PLAIN, has_sections=True)["not Plan:, Reasoning:, Evidence:, Sanity_check: each once, in order"] == "✗"


def test_what_has_no_form_and_no_end_fails_each_check() -> None:
    assert set(marks("I think that it is 46, or so", is_whole=False).values()) == {"✗"}


def test_the_streams_stand_apart() -> None:
    assert ask.split_streams(PLAIN) == ("7*6 = 42\n42+4 = 47", "46")
    assert ask.split_streams("no tags at all") == ("no tags at all", "")
    page = shown(DUAL, has_sections=True)
    titles = ("─ monologue", "Plan ", "Evidence ", "Sanity_check ", "─ answer", "─ checks")
    places = [page.index(title) for title in titles]
    assert places == sorted(places)
    assert "<reasoning>" not in page
    assert "Plan:" not in page  # its heading is in a column of its own
    assert "Plan: multiply" in shown(DUAL, has_sections=False)


def test_marks_of_markup_in_an_answer_are_text() -> None:
    assert "[bold]4[/bold]" in shown(PLAIN.replace("46", "[bold]4[/bold]"), has_sections=False)


# ------------------------------------------------------------------------------------------------ what is streamed


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Programs run only a few times, so compilation dominates."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose models/grpo is an untrained Gemma of two layers."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(presets.text("smoke"), "utf-8")
    lines = ["Tom has 5 apples and buys 3 more.", "5+3 = 8", "How many apples does he have?"]
    words = tokenizer.train(lines, vocabulary=310)
    tokenizer.save(words, folder / "models/grpo")
    spec = MODELS["gemma3_test"]
    model = gemma.build_model(spec, vocabulary=310, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(1))
    # At norms of 1 the embedding outweighs the layers, and the model repeats its last token for ever.
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda leaf: leaf + 8.0 if leaf.ndim == 1 else leaf, state))
    saving.save(model, folder / "models/grpo", spec=spec, stop_ids=(1, 5))
    return folder


def test_the_stream_is_what_generate_gives_up_to_the_stop_token(trained: Path) -> None:
    folder = trained / "models/grpo"
    model, _ = checkpoints.load(folder, dtype="float32")
    words = tokenizer.load(folder)
    prompt = [words.bos_id(), *words.encode(render_prompt("How many apples?", system=""))]
    found = rollout.generate(
        model, rollout.left_pad([prompt], pad_id=0), key=jax.random.key(0), generations=1,
        decoding=rollout.Decoding(rollout.Sampling(greedy=True), max_tokens=12, stop_ids=(), pad_id=0),
    )  # fmt: skip
    wanted = found.tokens[0].tolist()
    assert np.unique(wanted).size > 2
    streaming = rollout.stream(model, prompt, max_tokens=12, stop_ids=(), pad_id=0)
    assert next(streaming) == wanted[0]  # before the others are made
    assert [wanted[0], *streaming] == wanted
    stop = next(token for token in wanted if token != wanted[0])
    stopped = list(rollout.stream(model, prompt, max_tokens=12, stop_ids=(stop,), pad_id=0))
    assert stopped == wanted[: wanted.index(stop) + 1]


def test_the_command_prints_the_page(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    result = CliRunner().invoke(cli.app, ["ask", "How many apples?", "--arm", "grpo"], catch_exceptions=False)
    assert result.exit_code == 0
    for title in ("monologue", "answer", "checks"):
        assert f"─ {title} ─" in result.output


def test_without_an_arm_the_first_one_of_rl_answers_or_the_last() -> None:
    values = YAML(typ="safe").load(presets.text("tiny"))
    assert ask.choose(config.check(values), None).name == "grpo"
    assert ask.choose(config.check(values), "sft").name == "sft"
    values["rl"]["arms"] = {}
    assert ask.choose(config.check(values), None).name == "cast"
    values["cast"]["arms"] = values["sft"]["arms"] = {}
    assert ask.choose(config.check(values), None).name == "base"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["How many?", "--arm", "sft"], "sft: no such model: it was not trained yet"),
        (["How many?", "--arm", "grop"], r"arm grop is unknown; did you mean grpo\?"),
        (["  "], "the question is empty"),
    ],
)
def test_a_mistake_is_told(trained: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str) -> None:
    monkeypatch.chdir(trained)
    with pytest.raises(UserError, match=says):
        CliRunner().invoke(cli.app, ["ask", *arguments], catch_exceptions=False)
