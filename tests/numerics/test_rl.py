"""Advantages, token weights, layout and order of the group arms, computed by hand."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from showwork import config, rollout
from showwork.records import Completion, Problem
from showwork.rewards import RewardSpec
from showwork.training import credit, packing, rl
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows, policy_loss
from showwork.training.passes import Split
from tests.numerics.conftest import ONE_DEVICE, WHOLE, flat, gradients, log_softmax
from tests.numerics.test_losses import POLICY, WITH_KL

# ------------------------------------------------------------------------------------------------- advantages

# Two groups of three, asymmetric. Means 1/3 and 2; n - 1 deviations sqrt((4/9 + 1/9 + 1/9) / 2) = sqrt(1/3) and 1.
REWARDS = np.array([1.0, 0.0, 0.0, 3.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("kind", "advantages"),
    [
        ("grpo", [(2 / 3) * 3**0.5, (-1 / 3) * 3**0.5, (-1 / 3) * 3**0.5, 1.0, -1.0, 0.0]),
        ("drgrpo", [2 / 3, -1 / 3, -1 / 3, 1.0, -1.0, 0.0]),
        ("rloo", [1 - 0, 0 - 1 / 2, 0 - 1 / 2, 3 - 3 / 2, 1 - 5 / 2, 2 - 4 / 2]),
    ],
)
def test_group_advantages_by_hand(kind, advantages):
    # With the n estimate of the deviation, grpo's first would be (2/3) / sqrt(2/9) = 1.414, not 1.155.
    found = credit.group_advantages(REWARDS, generations=3, kind=kind)
    np.testing.assert_allclose(found, advantages, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["grpo", "drgrpo", "rloo"])
def test_advantages_of_a_group_sum_to_zero_and_groups_do_not_mix(kind):
    found = credit.group_advantages(REWARDS, generations=3, kind=kind).reshape(2, 3)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6)
    alone = credit.group_advantages(REWARDS[3:], generations=3, kind=kind)
    np.testing.assert_array_equal(found[1], alone)


@pytest.mark.parametrize("kind", ["grpo", "drgrpo", "rloo"])
@pytest.mark.parametrize("generations", [2, 3, 5, 6, 8, 16])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.1, 1 / 3, -0.7])
def test_a_constant_group_has_exactly_no_advantage(kind, generations, reward):
    # 3 * 0.1 / 3 is not 0.1 in binary: a rounding error of 1e-11 would remain, which Adam would normalise to full size.
    found = credit.group_advantages(np.full(2 * generations, reward), generations=generations, kind=kind)
    np.testing.assert_array_equal(found, 0)


# ----------------------------------------------------------------------------------------------- token weights

MASK = np.array([[0, 1, 0, 0], [1, 1, 1, 0]])  # completions of 1 and 3 tokens


@pytest.mark.parametrize(
    ("aggregation", "first", "second", "total"),
    [
        ("token-mean", 1 / 4, 1 / 4, 1.0),
        ("sequence-mean-token-mean", 1 / 2, 1 / 6, 1.0),
        ("sequence-mean-token-scale", 1 / 10, 1 / 10, 4 / 10),  # 2 rows of at most 5 tokens
    ],
)
def test_token_weights_by_hand(aggregation, first, second, total):
    weights = credit.token_weights(MASK, aggregation=aggregation, max_tokens=5)
    np.testing.assert_allclose(weights, MASK * [[first], [second]], rtol=1e-6)
    assert weights.sum() == pytest.approx(total)


def test_weights_of_nothing_are_zero():
    weights = credit.token_weights(np.zeros((2, 3)), aggregation="token-mean", max_tokens=5)
    np.testing.assert_array_equal(weights, 0)


# -------------------------------------------------------------------------------------------------- whole steps


def generated() -> rollout.Generated:
    """Four completions of unequal length after prompts of unequal length; pad 0, stop 1."""
    return rollout.Generated(
        prompt_tokens=np.array([[0, 0, 2, 10], [0, 0, 2, 10], [2, 20, 21, 22], [2, 20, 21, 22]]),
        tokens=np.array([[30, 1, 0, 0], [31, 32, 33, 1], [1, 0, 0, 0], [34, 35, 36, 37]]),
        lengths=np.array([2, 4, 1, 4]),
        is_truncated=np.array([False, False, False, True]),
    )


@pytest.fixture(scope="module")
def small_rows() -> Any:
    """Rows to a multiple of 8 instead of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ROW_BUCKET", 8)
        return packing.lay_out(generated(), pad_id=0)


def test_lay_out_with_unequal_prompts(small_rows):
    assert small_rows["tokens"].tolist() == [
        [2, 10, 30, 1, 0, 0, 0, 0],
        [2, 10, 31, 32, 33, 1, 0, 0],
        [2, 20, 21, 22, 1, 0, 0, 0],
        [2, 20, 21, 22, 34, 35, 36, 37],
    ]
    assert small_rows["mask"].tolist() == [
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]
    assert small_rows["segments"].tolist() == (small_rows["tokens"] > 0).astype(int).tolist()
    assert small_rows["positions"][1].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]


def test_rows_are_as_wide_as_the_bucket_asks():
    assert packing.lay_out(generated(), pad_id=0)["tokens"].shape == (4, packing.ROW_BUCKET)


def policy_values(rows: dict[str, np.ndarray], aggregation: str = "sequence-mean-token-mean") -> dict[str, np.ndarray]:
    """The rows with weights and advantages."""
    advantages = credit.group_advantages(np.array([1.0, 0.0, 0.25, 1.0]), generations=2, kind="drgrpo")
    weights = credit.token_weights(rows["mask"], aggregation=aggregation, max_tokens=4)
    return {**rows, "weights": weights, "advantages": (advantages[:, None] * rows["mask"]).astype(np.float32)}


def as_rows(values: dict[str, np.ndarray]) -> Rows:
    return Rows(**{name: value for name, value in values.items() if name != "mask"})


def logps_of(model: Any, rows: Rows, *, temperature: float = 1.0, split: Split = WHOLE) -> np.ndarray:
    loss = policy_loss(dataclasses.replace(POLICY, temperature=temperature))
    return completion_logps(model, rows, loss=loss, split=split, mesh=ONE_DEVICE)


GROUPS = np.array([0, 0, 1, 1])


def test_pack_puts_a_prompt_once_before_its_completions(small_rows):
    packed = packing.pack(small_rows, GROUPS, width=16, count=2, parts=1)
    # 1 + 5 + 3 places for the first group, the longer completion first; the other's 3 + 5 + 2 do not fit beside it.
    assert packed["tokens"].tolist() == [
        [2, 10, 31, 32, 33, 1, 10, 30, 1, 0, 0, 0, 0, 0, 0, 0],
        [2, 20, 21, 22, 34, 35, 36, 37, 22, 1, 0, 0, 0, 0, 0, 0],
    ]
    assert packed["branches"].tolist() == [
        [0, 1, 1, 1, 1, 1, 2, 2, 2] + [0] * 7,
        [0, 0, 0, 1, 1, 1, 1, 1, 2, 2] + [0] * 6,
    ]
    assert packed["positions"].tolist() == [
        [0, 1, 2, 3, 4, 5, 1, 2, 3] + [0] * 7,
        [0, 1, 2, 3, 4, 5, 6, 7, 3, 4] + [0] * 6,
    ]
    assert packed["segments"].tolist() == [[1] * 9 + [0] * 7, [1] * 10 + [0] * 6]
    assert packed["mask"].sum() == small_rows["mask"].sum()
    nothing = {name: value[:0] for name, value in small_rows.items()}
    assert packing.pack(nothing, GROUPS[:0], width=16, count=2, parts=1)["segments"].sum() == 0


def test_packed_groups_share_rows_and_a_prompt_stands_again_in_each_row_that_needs_it(small_rows):
    together = packing.pack(small_rows, GROUPS, width=24, count=2, parts=1)
    assert together["segments"].tolist() == [[1] * 9 + [2] * 10 + [0] * 5, [0] * 24]
    assert together["branches"][0, :19].tolist() == [0, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    # Where the width is 8: 6, 4, 8 and 5, one a row, in turn to two parts; empty rows come last in each.
    apart = packing.pack(small_rows, GROUPS, width=8, count=6, parts=2)
    assert (apart["segments"] > 0).sum(axis=1).tolist() == [6, 8, 0, 4, 5, 0]
    assert apart["branches"].max() == 1


@pytest.mark.slow  # test_passes has the same of random rows
@pytest.mark.parametrize("window", [64, 3])
def test_packed_rows_have_the_loss_and_gradient_of_unpacked_ones(model, small_rows, monkeypatch, window):
    # With a window of 3 a local layer must count positions: in places, a second completion would lose its prompt.
    for layer in model.layers:
        monkeypatch.setattr(layer.attn, "sliding_window_size", window)
    values = policy_values(small_rows)
    reference = logps_of(model, as_rows(values)) - np.float32(0.3)
    values["reference_logps"] = np.where(values["mask"] > 0, reference, np.float32(0))
    (loss, aux), slope = gradients(model, as_rows(values), policy_loss(WITH_KL))
    packed = packing.pack(values, GROUPS, width=16, count=4, parts=1)
    (packed_loss, packed_aux), packed_slope = gradients(model, as_rows(packed), policy_loss(WITH_KL))
    assert float(packed_loss) == pytest.approx(float(loss), rel=1e-5)
    assert float(packed_aux["kl"]) == pytest.approx(float(aux["kl"]), rel=1e-4)
    np.testing.assert_allclose(flat(packed_slope), flat(slope), atol=1e-6)
    # And so have the log-probabilities that mu > 1 and a reference ask for.
    logps = logps_of(model, as_rows(packed))
    np.testing.assert_allclose(
        np.sort(logps[packed["mask"] > 0]), np.sort(reference[small_rows["mask"] > 0]) + 0.3, atol=1e-5
    )


@pytest.mark.parametrize("split", [WHOLE, Split(1, 8, 3), Split(2, 8, 5)])
def test_completion_logps_are_those_of_whole_passes(model, small_rows, logits_of, split):
    rows = as_rows(policy_values(small_rows))
    found, warm = (logps_of(model, rows, temperature=temperature, split=split) for temperature in (1.0, 0.5))
    np.testing.assert_array_equal(found[small_rows["mask"] == 0], 0)
    for row, (tokens, segments, mask) in enumerate(zip(rows.tokens, rows.segments, small_rows["mask"], strict=True)):
        ids = tokens[segments > 0]
        logits = logits_of(model, ids)[:-1]
        for values, temperature in ((found, 1.0), (warm, 0.5)):
            expected = np.take_along_axis(log_softmax(logits / temperature), ids[1:, None], axis=1)[:, 0]
            expected *= mask[1 : len(ids)]
            np.testing.assert_allclose(values[row, 1 : len(ids)], expected, atol=2e-5)


def test_completion_logps_are_the_old_logps_of_the_loss(model, small_rows):
    # At the ratio 1 the loss is -sum(A w); with old logps ln 2 below it is twice that, unclipped below epsilon 2.
    rows = as_rows(policy_values(small_rows, "token-mean"))
    logps = logps_of(model, rows)
    wide = policy_loss(dataclasses.replace(POLICY, epsilon_high=2.0))
    on_policy = -(rows.advantages * rows.weights).sum()
    for old, factor in ((logps, 1), (logps - np.float32(np.log(2)), 2)):
        (loss, aux), _ = gradients(model, rows._replace(old_logps=old, reference_logps=logps), wide)
        assert float(loss) == pytest.approx(factor * on_policy, rel=1e-4)
        assert float(aux["kl"]) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- a step's rows


def packer(split: Split, **changes: Any) -> packing.Packer:
    limits = {"max_completion_tokens": 4}
    settings = {"prompts_per_step": 2, "generations": 2, "beta": 0.0, "loss_aggregation": "token-mean", **changes}
    rollout_limits = config.Rollout.model_construct(**limits)
    return packing.Packer(
        config.Rl.model_construct(**settings, rollout=rollout_limits), widest=4, pad_id=0, split=split
    )


@pytest.mark.parametrize("split", [WHOLE, Split(1, 8, 3), Split(2, 8, 5), Split(4, 10**6, 7)])
def test_weights_are_over_the_whole_step_whatever_a_pass_holds(split, monkeypatch):
    # 11 completion tokens in four completions. Divided by each pass's own tokens, those of a short completion that is
    # alone in its pass would count for more.
    monkeypatch.setattr(packing, "ROW_BUCKET", 8)
    rows = packer(split)(generated(), np.array([1.0, -1.0, 0.5, -0.5]))
    assert rows.tokens.shape == (split.capacity(4, 8), 8)
    assert (rows.weights > 0).sum() == 2 + 4 + 1 + 4
    np.testing.assert_allclose(rows.weights[rows.weights > 0], 1 / 11, rtol=1e-6)
    assert {*rows.advantages[rows.weights > 0].tolist()} == {1.0, -1.0, 0.5, -0.5}


def test_groups_without_variance_are_left_out_without_a_kl_term_alone():
    found = packer(WHOLE)(generated(), np.array([0.0, 0.0, 0.5, -0.5]))
    assert (found.weights > 0).sum() == 1 + 4
    np.testing.assert_allclose(found.weights.max(), 1 / 11, rtol=1e-6)  # they count in the mean
    with_kl = packer(WHOLE, beta=0.1)(generated(), np.array([0.0, 0.0, 0.5, -0.5]))
    assert (with_kl.weights > 0).sum() == 11


# --------------------------------------------------------------------------------------------------------- data


def take(count: int, batch: int, *, seed: int = 0, first: int = 0, steps: int) -> list[list[int]]:
    return [index.tolist() for index in itertools.islice(rl.problem_order(count, batch, seed=seed, first=first), steps)]


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (10, 4), (3, 4), (5, 5)])
def test_each_epoch_is_a_permutation_even_across_batches(count, batch):
    stream = np.concatenate(take(count, batch, steps=3 * count))
    epochs = stream[: len(stream) // count * count].reshape(-1, count)
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1  # shuffled anew


@pytest.mark.parametrize("first", [0, 1, 2, 3, 7, 31])
def test_a_resumed_order_goes_on_where_it_stopped(first):
    assert take(10, 4, first=first, steps=5) == take(10, 4, steps=first + 5)[first:]


def test_the_seed_decides_the_order():
    assert take(10, 4, steps=5) == take(10, 4, steps=5)
    assert take(10, 4, steps=5) != take(10, 4, seed=1, steps=5)


# ------------------------------------------------------------------------------------------------------ rewards


@pytest.mark.parametrize("values", [[0.5, 1.5], [-0.1, 0.5], [float("nan"), 0.5], [0.5], [0.5, 0.5, 0.5]])
def test_a_reward_that_leaves_its_range_or_length_is_an_error(monkeypatch, values):
    spec = RewardSpec("answer", lambda completions, problems: values, 0.0, 1.0)
    monkeypatch.setattr(credit, "load", lambda name: spec)
    completions = [Completion("", 1, False)] * 2
    with pytest.raises(ValueError, match="answer left its range"):
        credit.score({"answer": 1.0}, completions, [Problem("0", "", "", "1", ())] * 2)


def test_a_reward_that_crashes_is_an_error_and_no_zero(monkeypatch):
    def broken(completions, problems):
        raise ZeroDivisionError

    monkeypatch.setattr(credit, "load", lambda name: RewardSpec("answer", broken, 0.0, 1.0))
    with pytest.raises(ZeroDivisionError):
        credit.score({"answer": 1.0}, [], [])
