"""params.yaml: every fault ends the run with its file, its key and the nearest known name."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from ruamel.yaml import YAML

from showwork import config
from showwork.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "params.yaml").read_text())


def fault(values: Any) -> str:
    with pytest.raises(UserError) as caught:
        config.check(values, "some/params.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("some/params.yaml: ") for line in lines)
    return str(caught.value)


def keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key, sections included; not of rewards, styles and arms, whose names are values."""
    for name, value in values.items():
        if path[1:] != ("arms",):
            yield (*path, name)
        if isinstance(value, dict) and name not in ("rewards", "styles", "replay_styles"):
            yield from keys(value, (*path, name))


def section(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The section at a path, created if missing: an arm does not repeat shared sections."""
    for part in path:
        values = values.setdefault(part, {})
    return values


def sections(of: type = config.Section) -> Iterator[type]:
    for found in of.__subclasses__():
        yield found
        yield from sections(found)


# ------------------------------------------------------------------------------------------------ valid files


def test_the_committed_file_is_valid(values):
    assert config.load(ROOT / "params.yaml").model_dump() == config.check(values).model_dump()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "src/showwork/presets").glob("*.yaml")))
def test_every_preset_is_readable_yaml(name):
    assert isinstance(YAML(typ="safe").load((ROOT / "src/showwork/presets" / name).read_text()), dict)


@pytest.mark.parametrize("kind", sorted(sections(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_section_is_frozen_strict_and_closed(kind):
    wanted = {"frozen": True, "extra": "forbid", "strict": True}
    assert {name: kind.model_config.get(name) for name in wanted} == wanted
    assert all(field.is_required() for field in kind.model_fields.values())  # no default in code


def test_a_value_cannot_be_changed(values):
    params = config.check(values)
    with pytest.raises(pydantic.ValidationError):
        params.arms["grpo"].settings.beta = 1.0
    with pytest.raises(pydantic.ValidationError):
        params.seed = 1


# ------------------------------------------------------------------------------------------------- every key


def test_every_missing_key_is_named(values):
    for path in keys(values):
        if path == ("data", "source"):
            continue
        if path[1:2] == ("arms",) and path[3:4] == ("rollout",):
            continue  # dsa_cast's own; without it the shared one counts
        damaged = copy.deepcopy(values)
        del section(damaged, path[:-1])[path[-1]]
        assert f"{'.'.join(path)} is missing" in fault(damaged)


def test_every_misspelt_key_is_named_with_its_nearest(values):
    for path in keys(values):
        if path == ("data", "source"):
            continue
        damaged = copy.deepcopy(values)
        part = section(damaged, path[:-1])
        name = path[-1] + path[-1][-1]
        part[name] = part.pop(path[-1])
        assert f"{'.'.join((*path[:-1], name))} is unknown; did you mean {path[-1]}?" in fault(damaged)


def test_every_wrong_type_is_named(values):
    for path in keys(values):
        damaged = copy.deepcopy(values)
        section(damaged, path[:-1])[path[-1]] = [None]
        assert ".".join(path) in fault(damaged)


def test_several_faults_come_at_once_one_a_line(values):
    values["rl"]["shared"]["betaa"] = values["rl"]["shared"].pop("beta")
    values["sft"]["arms"]["sft"]["steps"] = "many"
    values["seed"] = -1
    lines = fault(values).splitlines()
    assert len(lines) == 4
    for start in (
        "seed: ", "sft.arms.sft.steps: ", "rl.arms.grpo.beta is missing",
        "rl.shared.betaa is unknown; did you mean beta?",
    ):  # fmt: skip
        assert sum(line.startswith(f"some/params.yaml: {start}") for line in lines) == 1


# ----------------------------------------------------------------------------------------------- single values


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parts, last = path.split(".")
    return lambda values: section(values, tuple(parts)).__setitem__(last, value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", True, "seed: "),
        ("seed", 1.0, "seed: "),
        ("seed", 2**64, "seed: "),  # no random key is made of it
        ("sft.arms.sft.steps", 0, "sft.arms.sft.steps: "),
        ("sft.arms.sft.steps", "40", "sft.arms.sft.steps: "),
        ("rl.arms.grpo.beta", float("nan"), "rl.arms.grpo.beta: "),
        ("rl.arms.grpo.beta", -0.1, "rl.arms.grpo.beta: "),
        ("rl.arms.grpo.generations", 1, "rl.arms.grpo.generations: "),
        ("rl.arms.grpo.epsilon_low", 1.0, "rl.arms.grpo.epsilon_low: "),
        ("rl.arms.grpo.advantage", "gpro", "rl.arms.grpo.advantage: "),
        ("rl.arms.grpo.rewards", {}, "rl.arms.grpo.rewards: "),
        ("rl.arms.grpo.rewards", {"answer": float("inf")}, "rl.arms.grpo.rewards.answer: "),
        ("rl.arms.grpo.rollout.top_p", 0.0, "rl.arms.grpo.rollout.top_p: "),
        ("rl.arms.grpo.rollout.temperature", 0.0, "rl.arms.grpo.rollout.temperature: "),
        (
            "rl.arms.grpo.optimizer.b1",
            1.0,
            "rl.arms.grpo.optimizer.b1: ",
        ),  # 1 - b1 ** t, which Adam divides by, would be 0
        (
            "rl.arms.grpo.adapter",
            {"rank": 4, "alpha": 4.0, "modules": [], "rnak": 1},
            "rl.arms.grpo.adapter.rnak is unknown; did you mean rank?",
        ),
        ("hardware.mesh.tp", 0, "hardware.mesh.tp: "),
        ("tokenizer.vocabulary", 256, "tokenizer.vocabulary: "),
        ("model.name", "gemma3_tny", "model.name: gemma3_tny is unknown; did you mean gemma3_tiny?"),
        ("rl.arms.grpo.rewards", {"anser": 1.0}, "rl.arms.grpo.rewards: anser is unknown; did you mean answer?"),
        (
            "rl.arms.grpo.rewards",
            {"answer": 1.0, "zzz": 0.1},
            "rl.arms.grpo.rewards: zzz is unknown; known: answer, format, equations",
        ),
        ("evaluate.few_shot", -1, "evaluate.few_shot: "),
        ("evaluate.few_shot", True, "evaluate.few_shot: "),
        ("data.difficulty", "hrad", "data.difficulty: "),
        ("data.dificulty", "hard", "data.dificulty is unknown; did you mean difficulty?"),
        ("data.source", "genrated", "data.source: genrated is unknown; did you mean generated?"),
        ("data", None, "data: "),
    ],
)
def test_a_wrong_value_is_named(values, path, value, message):
    setting(path, value)(values)
    assert f"some/params.yaml: {message}" in fault(values)


def test_a_missing_source_of_data_is_named(values):
    del values["data"]["source"]
    assert "data.source is missing" in fault(values)


JSONL = {
    "source": "jsonl", "train_files": ["a.jsonl"], "test_files": [], "hold_out_rows": 100, "basic_maths_files": [],
    "second_test_files": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_rows": 5}, "data.train_rows is unknown; did you mean train_files?"),
        ({"train_files": []}, "data.train_files: "),
        ({"train_files": [3]}, "data.train_files.0: "),
        ({"basic_maths_files": "maths.csv"}, "data.basic_maths_files: "),
        ({"second_test_files": "gsm8k.jsonl"}, "data.second_test_files: "),
        ({"hold_out_rows": 0}, "data: give either test_files or hold_out_rows"),
        ({"test_files": ["b.jsonl"]}, "data: give either test_files or hold_out_rows"),
    ],
)
def test_faults_of_another_source(values, changes, message):
    assert config.check({**values, "data": JSONL}).data.hold_out_rows == 100
    assert f"some/params.yaml: {message}" in fault({**values, "data": JSONL | changes})


# ---------------------------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rl.arms.grpo.micro_batches": 2}, ("rl.arms.grpo.micro_batches is unknown; hardware.tokens_per_pass says",)),
        (
            {"sft.shared.micro_batch_rows": 2},
            ("sft.shared.micro_batch_rows is unknown; hardware.tokens_per_pass says",),
        ),
        ({"hardware.rollout_tp": 4}, ("hardware: ", "rollout_tp (4)", "number of devices (2)")),
        ({"rl.arms.grpo.rollout.rows_per_call": 12}, ("grpo: ", "rollout.rows_per_call (12)")),
        ({"rl.arms.grpo.rollout.rows_per_call": 24}, ("grpo: ", "must divide prompts_per_step")),
        ({"rl.arms.grpo.watched_problems": 10**6}, ("grpo: ", "watched_problems")),
        ({"rl.arms.grpo.iterations": 2, "rl.arms.grpo.rollout.top_k": 5}, ("grpo: ", "iterations > 1", "top_k 0")),
        ({"rl.arms.grpo.iterations": 2, "rl.arms.grpo.rollout.top_p": 0.9}, ("grpo: ", "iterations > 1", "top_p 1")),
        ({"rl.arms.grpo.rewards": {"answer": 1.0, "format": 1.0}}, ("rl.arms.grpo.rewards: ", "by 0;")),
        (
            {"rl.arms.grpo.rewards": {"answer": 1.0, "format": 0.6, "equations": -0.6}},
            ("rl.arms.grpo.rewards: ", "by -0.2;"),
        ),
        ({"rl.arms.grpo.rewards": {"answer": -1.0}}, ("rl.arms.grpo.rewards: ", "answer")),
    ],
)
def test_contradictions_are_refused(values, changes, words):
    sizes = {"rl.arms.grpo.prompts_per_step": 32, "rl.arms.grpo.generations": 8}
    for path, value in ({**sizes, "rl.arms.grpo.rollout.rows_per_call": 256} | changes).items():
        setting(path, value)(values)
    message = fault(values)
    assert all(word in message for word in words)


def test_a_reward_of_weight_zero_is_a_measurement(values):
    values["rl"]["arms"]["grpo"]["rewards"] = {"answer": 1.0, "format": 0.1, "equations": 0.0}
    assert config.check(values).arms["grpo"].settings.rewards["equations"] == 0


# ---------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, or not a mapping"),
        (b"# only a comment\n", "empty, or not a mapping"),
        (b"- seed\n", "empty, or not a mapping"),
        (b"7\n", "empty, or not a mapping"),
        (b"seed: [1\n", "not YAML"),
        (b"seed: 1\nseed: 2\n", "seed"),  # twice
        (b"seed:\t1\n  x: 2\n", "not YAML"),
        (b"seed: 1\n---\nseed: 2\n", "not YAML"),
        (b"seed: \x00\n", "not YAML"),
        (b"seed: !!python/object/apply:os.getcwd []\n", "not YAML"),
        (b"\xff\xfe\x00seed", "not YAML"),
        (b"seed: 2024-13-45\n", "not YAML"),
        (b"seed: !!int many\n", "not YAML"),
        (b"[" * 5000, "not YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake_that_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        config.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_mistakes(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "params.yaml")
    with pytest.raises(UserError, match=str(tmp_path)):
        config.load(tmp_path)


def test_a_yaml_comment_and_an_exponent_are_read(tmp_path, values):
    values["sft"]["shared"]["optimizer"]["learning_rate"] = "RATE"
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        YAML().dump(values, file)
    path.write_text("# a comment\n" + path.read_text().replace("RATE", "3e-3"))
    assert config.load(path).arms["sft"].settings.optimizer.learning_rate == 0.003


# ------------------------------------------------------------------------------------------------------ the arms


def add(values: dict[str, Any], kind: str, name: Any, like: str, **changes: Any) -> None:
    values[kind]["arms"][name] = {**values[kind]["arms"][like], **changes}


def test_an_arm_is_what_it_shares_and_what_it_has_otherwise(values):
    add(values, "rl", "mine", "dsa_cast", beta=0.25, start="cast")
    arms = config.check(values).arms
    assert list(arms) == ["base", "sft", "sft_dual", "grpo", "trajectory", "dsa_cast", "mine", "cast"]
    mine, grpo = arms["mine"], arms["grpo"]
    assert (mine.kind, mine.start, mine.prompt, mine.settings.beta) == ("rl", "cast", "dual", 0.25)
    assert (mine.settings.rollout.max_completion_tokens, grpo.settings.rollout.max_completion_tokens) == (160, 112)
    assert mine.settings.rollout.temperature == grpo.settings.rollout.temperature
    assert mine.settings.rewards == {"dual_stream": 1.0, "format": 0.1}  # whole, never in part


def test_the_system_text_is_that_of_the_arms_prompt(values):
    values["prompt"] = {"plain": "Think.", "dual": "Plan."}
    params = config.check(values)
    assert {arm: params.system(arm) for arm in ("base", "grpo", "cast")} == {
        "base": "Think.", "grpo": "Think.", "cast": "Plan.",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["sft", "rl", "cast"])
def test_a_kind_may_have_no_arms(values, kind):
    for other in ("sft", "rl", "cast"):
        values[other]["arms"] = {}
    assert list(config.check(values).arms) == ["base"]
    values[kind]["shared"] = {}
    assert list(config.check(values).arms) == ["base"]


@pytest.mark.parametrize("name", ["Mine", "my arm", "a/b", "a.b", "a-b", "1a", "_a", "ä", "", "a" * 41, "a\n", "${x}"])
def test_a_name_that_dvc_or_a_file_system_refuses(values, name):
    add(values, "rl", name, "grpo")
    assert f"rl.arms.{name}: {name!r} is no arm's name: lower-case letters".splitlines()[0] in fault_text(values)


def fault_text(values: Any) -> str:
    with pytest.raises(UserError) as caught:
        config.check(values)
    return str(caught.value)


@pytest.mark.parametrize("name", ["base", "report", "code", "evaluate", "tokenizer", "weights", "clean", "ingest"])
def test_a_name_of_a_stage(values, name):
    add(values, "rl", name, "grpo")
    assert f"rl.arms.{name}: {name} is the name of a stage" in fault(values)


def test_a_name_that_is_no_text(values):
    add(values, "rl", 7, "grpo")
    assert "rl.arms" in fault(values)


def test_two_kinds_with_one_name(values):
    add(values, "rl", "cast", "dsa_cast")
    assert "cast.arms.cast: rl.arms has an arm of that name already" in fault(values)


def test_a_circle_of_starts(values):
    add(values, "rl", "a", "grpo", start="b")
    add(values, "rl", "b", "grpo", start="a")
    assert "arms start from one another in a circle: a → b → a; one of them must start from base" in fault(values)
    add(values, "rl", "a", "grpo", start="a")
    assert "a → a" in fault(values)


def test_a_start_that_is_not_there(values):
    values["rl"]["arms"]["grpo"]["start"] = "sftt"
    assert "rl.arms.grpo.start: there is no arm sftt; did you mean sft?" in fault(values)


def test_a_start_with_another_prompt(values):
    values["rl"]["arms"]["grpo"]["start"] = "sft_dual"
    assert "rl.arms.grpo.start: sft_dual has prompt: dual, and grpo has prompt: plain" in fault(values)
    values["rl"]["arms"]["grpo"]["start"] = "base"
    config.check(values)  # which fits any


@pytest.mark.parametrize("key", ["start", "prompt"])
def test_what_is_each_arms_own_is_not_shared(values, key):
    values["rl"]["shared"][key] = values["rl"]["arms"]["grpo"].pop(key)
    message = fault(values)
    assert f"rl.shared.{key}: {key} is each arm's own" in message


def test_the_former_layout_says_what_moved_where(values):
    former = {**values, "sft": {"start": "base", "steps": 5}, "grpo": {"beta": 0.0}}
    for key, place in (("grpo", "rl.arms.grpo"), ("sft_dual", "sft.arms.sft_dual"), ("prompt.system", "prompt.plain")):
        assert f"{key} → {place}" in fault(former)
    assert "`showwork preset NAME` writes the new layout" in fault(former)
