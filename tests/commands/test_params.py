"""showwork params: the meaning and the value of a key."""

from pathlib import Path

import pytest

from showwork.config import training
from showwork.config.params import Params
from showwork.errors import UserError
from tests.conftest import invoke


def test_a_shared_key_is_shown_with_each_arms_value(project: Path) -> None:
    lines = invoke("params", "rl.beta").splitlines()
    assert lines[0] == "rl.shared.beta: " + str(training.Rl.model_fields["beta"].description)
    assert lines[1:] == ["  rl.arms.grpo: 0.0", "  rl.arms.trajectory: 0.0", "  rl.arms.dsa_cast: 0.0"]
    assert invoke("params", "rl.shared.beta").splitlines() == lines
    assert "  rl.arms.dsa_cast: 160" in invoke("params", "rl.rollout.max_completion_tokens")


def test_an_arm_is_shown_whole(project: Path) -> None:
    shown = invoke("params", "rl.arms.grpo")
    assert 'rl.arms.grpo.rewards: [{"answer": 1.0, "format": 0.1}]' in shown
    assert "rl.arms.grpo.generations: [8] Completions of each question" in shown
    assert "rl.arms.grpo.optimizer.b1: [0.9] Decay" in invoke("params", "rl.arms.grpo.optimizer")
    assert "rl.arms.grpo: starts from sft, prompt: plain" in invoke("params", "rl.arms")


def test_other_sections(project: Path) -> None:
    assert invoke("params", "evaluate.samples").splitlines()[1] == "  8"
    assert "data.train_rows: [20000] Problems to train on" in invoke("params", "data")
    assert "hardware.mesh.tp: [1]" in invoke("params", "hardware.mesh")
    assert [line.partition(":")[0] for line in invoke("params").splitlines()] == list(Params.model_fields)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("rl.betaa", "rl.shared has no key betaa; did you mean beta?"),
        ("rll", "params.yaml has no key rll; did you mean rl?"),
        ("rl.arms.grop", "rl.arms has no grop; did you mean grpo?"),
        ("evaluate.sample", "evaluate has no key sample; did you mean samples?"),
        ("rl.beta.x", "rl.shared.beta has no key x"),
        ("seed.x", "seed has no key x"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, says: str, project: Path) -> None:
    with pytest.raises(UserError) as caught:
        invoke("params", key)
    assert says in str(caught.value)


def test_every_key_says_what_it_is() -> None:
    from showwork import config

    for section in vars(config).values():
        if isinstance(section, type) and issubclass(section, config.Section):
            for name, field in section.model_fields.items():
                if (section.__name__, name) not in {(s, "source") for s in ("GeneratedData", "JsonlData", "HubData")}:
                    assert field.description, f"{section.__name__}.{name}"
