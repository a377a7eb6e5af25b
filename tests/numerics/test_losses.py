"""The losses' numbers, computed by hand, and changes that must not affect them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from showwork.training import losses
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows, policy_loss
from tests.numerics.conftest import ONE_DEVICE, WHOLE, flat, gradients, log_softmax

LN2, LN3 = np.log(2), np.log(3)


@pytest.fixture
def strict():
    """For this package's arithmetic: no implicit rank promotion, no NaN."""
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        yield


# --------------------------------------------------------------------------------------------------------- KL


@pytest.mark.usefixtures("strict")
def test_k3_by_hand():
    # r = ref / policy = 1/2: 1/2 - 1 - ln 1/2; r = 2: 2 - 1 - ln 2. The signed k1 would be ln 2 and -ln 2.
    logps, reference = jnp.log(jnp.array([0.5, 0.25])), jnp.log(jnp.array([0.25, 0.5]))
    np.testing.assert_allclose(losses.k3(logps, reference), [LN2 - 0.5, 1 - LN2], rtol=1e-6)


def test_k3_is_never_negative_and_zero_at_equality():
    difference = np.concatenate([-np.logspace(-8, 1, 200), [0], np.logspace(-8, 1, 200)]).astype(np.float32)
    for logp in (-0.001, -1.0, -15.0):
        values = losses.k3(jnp.full(len(difference), logp), jnp.asarray(logp + difference))
        assert np.all(np.asarray(values) >= 0)
        assert float(losses.k3(jnp.float32(logp), jnp.float32(logp))) == 0


@pytest.mark.parametrize("difference", [1e-2, 1e-3, 1e-4])
def test_k3_is_accurate_near_zero(difference):
    exact = np.expm1(np.float64(np.float32(difference))) - np.float64(np.float32(difference))
    ours = float(losses.k3(jnp.float32(0), jnp.float32(difference)))
    assert ours == pytest.approx(exact, rel=5e-3)


def test_k3_written_with_exp_would_be_wrong_near_zero():
    difference = np.float32(1e-4)
    assert abs((np.exp(difference) - 1 - difference) / 5e-9 - 1) > 1  # the error that the test above guards against


def test_on_policy_gradient_of_k3_is_not_zero_where_that_of_k1_is():
    # Policy 3/4 1/4, reference 1/2 1/2. The expectation over the policy's own tokens, samples held fixed:
    # k3 gives E[(1 - r) grad logp] = policy - reference; k1 gives E[grad logp] = 0, whatever the reference.
    logits, reference = jnp.array([LN3, 0.0]), jnp.log(jnp.array([0.5, 0.5]))

    def expected(estimator):
        def value(logits):
            logps = jax.nn.log_softmax(logits)
            return jnp.sum(jax.lax.stop_gradient(jnp.exp(logps)) * estimator(logps, reference))

        return jax.grad(value)(logits)

    np.testing.assert_allclose(expected(losses.k3), [0.75 - 0.5, 0.25 - 0.5], atol=1e-6)
    np.testing.assert_allclose(expected(lambda logps, reference: logps - reference), [0, 0], atol=1e-6)


# ---------------------------------------------------------------------------------------------------- clipping


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "is_clipped"),
    [
        (2.0, 1.5, -2 * 1.3, 1),  # the high side is 1.3; a symmetric epsilon of 0.2 would give -2.4
        (2.0, 1.25, -2 * 1.25, 0),
        (2.0, 1.0, -2.0, 0),
        (2.0, 0.5, -2 * 0.5, 0),  # a good token grown rarer is never clipped
        (-2.0, 0.5, 2 * 0.8, 1),
        (-2.0, 0.9, 2 * 0.9, 0),
        (-2.0, 1.5, 2 * 1.5, 0),  # a bad token grown likelier is never clipped
    ],
)
def test_clipped_objective_by_hand(advantage, ratio, loss, is_clipped):
    def objective(logps):
        terms, clipped = losses.clipped_objective(
            logps, jnp.full((1, 1), -1.0), jnp.full((1, 1), advantage), epsilon_low=0.2, epsilon_high=0.3
        )
        return terms.sum(), clipped

    logps = jnp.full((1, 1), -1.0) + jnp.log(ratio)
    (value, clipped), gradient = jax.value_and_grad(objective, has_aux=True)(logps)
    assert float(value) == pytest.approx(loss, rel=1e-5)
    assert clipped.item() == is_clipped
    # d(-A r)/d logp = -A r where the clip did not decide, else 0.
    assert gradient.item() == pytest.approx(0.0 if is_clipped else -advantage * ratio, rel=1e-5)


def test_advantages_a_row_and_a_token_agree():
    logps = jnp.log(jnp.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    advantages, options = jnp.array([[1.0], [-2.0]]), {"epsilon_low": 0.2, "epsilon_high": 0.3}
    rows, _ = losses.clipped_objective(logps, logps - 0.5, advantages, **options)
    tokens, _ = losses.clipped_objective(logps, logps - 0.5, jnp.repeat(advantages, 3, axis=1), **options)
    np.testing.assert_array_equal(rows, tokens)


# ------------------------------------------------------------------------------------------------ whole losses

# Two examples of unequal length: prompts of 2 and 4 tokens, completions of 3 and 5.
EXAMPLES = [([2, 10, 11, 12, 1], 2), ([2, 20, 21, 22, 23, 24, 25, 26, 1], 4)]
COMPLETION_TOKENS = 3 + 5


def rows(*groups: list[int], width: int, weight: float = 1 / COMPLETION_TOKENS) -> Rows:
    """Rows that hold the examples of each group one after the other."""
    tokens, positions, segments = (np.zeros((len(groups), width), np.int32) for _ in range(3))
    weights = np.zeros((len(groups), width), np.float32)
    for row, group in enumerate(groups):
        start = 0
        for segment, (ids, prompt_tokens) in enumerate((EXAMPLES[i] for i in group), start=1):
            end = start + len(ids)
            tokens[row, start:end] = ids
            positions[row, start:end] = range(len(ids))
            segments[row, start:end] = segment
            weights[row, start + prompt_tokens : end] = weight
            start = end
    return Rows(tokens, positions, segments, weights)


def test_supervised_loss_is_the_mean_over_completion_tokens(model, logits_of):
    (loss, aux), _ = gradients(model, rows([0], [1], width=16))
    nll = 0.0
    for tokens, prompt_tokens in EXAMPLES:
        logps = log_softmax(logits_of(model, tokens))
        nll -= sum(logps[t - 1, tokens[t]] for t in range(prompt_tokens, len(tokens)))
    assert float(aux["nll"]) == pytest.approx(nll, rel=1e-5)
    assert int(aux["tokens"]) == COMPLETION_TOKENS
    # A mean of the two rows' own means would weigh the shorter completion's tokens 5/3 times as much.
    assert float(loss) == pytest.approx(nll / COMPLETION_TOKENS, rel=1e-5)


def test_packed_equals_unpacked(model):
    (loss, aux), slope = gradients(model, rows([0], [1], width=16))
    (packed_loss, packed_aux), packed_slope = gradients(model, rows([0, 1], [], width=16))
    assert float(packed_loss) == pytest.approx(float(loss), rel=1e-5)
    assert float(packed_aux["nll"]) == pytest.approx(float(aux["nll"]), rel=1e-5)
    np.testing.assert_allclose(flat(packed_slope), flat(slope), atol=2e-6)

    # One segment for both, as without a mask: the second example would see the first.
    merged = rows([0, 1], [], width=16)
    merged = merged._replace(segments=np.minimum(merged.segments, 1))
    assert abs(float(gradients(model, merged)[0][0]) - float(loss)) > 1e-3


def test_padding_changes_nothing(model):
    (loss, aux), slope = gradients(model, rows([0, 1], [], width=16))
    (wide_loss, wide_aux), wide_slope = gradients(model, rows([0, 1], [], width=24))
    assert float(wide_loss) == pytest.approx(float(loss), rel=1e-5)
    assert int(wide_aux["tokens"]) == int(aux["tokens"])
    np.testing.assert_allclose(flat(wide_slope), flat(slope), atol=2e-6)


def test_what_stands_in_padding_is_not_read(model):
    batch = rows([0, 1], [], width=16)
    other = batch._replace(tokens=np.where(batch.segments == 0, 33, batch.tokens))
    np.testing.assert_array_equal(flat(gradients(model, batch)), flat(gradients(model, other)))


def test_prompts_alone_have_no_gradient(model):
    batch = rows([0, 1], [], width=16)
    (loss, aux), slope = gradients(model, batch._replace(weights=np.zeros_like(batch.weights)))
    assert float(loss) == 0
    assert int(aux["tokens"]) == 0
    assert not flat(slope).any()


# ------------------------------------------------------------------------------------------------ policy_loss

POLICY = losses.Objective(beta=0.0, epsilon_low=0.2, epsilon_high=0.3, temperature=1.0)
WITH_KL = losses.Objective(beta=0.5, epsilon_low=0.2, epsilon_high=0.3, temperature=1.0)


def policy_rows(advantages: tuple[float, float], old: Any = None, reference: Any = None) -> Rows:
    batch = rows([0], [1], width=16)
    each = (np.array(advantages)[:, None] * (batch.weights > 0)).astype(np.float32)
    return batch._replace(advantages=each, old_logps=old, reference_logps=reference)


def logps_of(model: nnx.Module) -> np.ndarray:
    """Of the completion tokens; 0 at the others."""
    return completion_logps(model, policy_rows((0, 0)), loss=policy_loss(POLICY), split=WHOLE, mesh=ONE_DEVICE)


def test_on_policy_gradient_is_that_of_reinforce(model):
    batch = policy_rows((1.5, -0.5))
    (loss, aux), slope = gradients(model, batch, policy_loss(POLICY))
    # The textbook's -sum(A * weight * logp) is a cross-entropy whose weights are signed.
    signed = rows([0], [1], width=16)
    _, textbook = gradients(model, signed._replace(weights=batch.weights * batch.advantages))
    assert np.abs(flat(textbook)).max() > 1e-3
    np.testing.assert_allclose(flat(slope), flat(textbook), atol=1e-6)
    # At ratio 1 the value is -sum(A * weight).
    assert float(loss) == pytest.approx(-(1.5 * 3 - 0.5 * 5) / COMPLETION_TOKENS, rel=1e-5)
    assert float(aux["clipped"]) == 0


def test_without_advantage_and_beta_the_gradient_is_exactly_zero(model):
    _, slope = gradients(model, policy_rows((0.0, 0.0)), policy_loss(POLICY))
    assert not flat(slope).any()


def test_the_entropy_and_token_sums(model, logits_of):
    (_, aux), _ = gradients(model, policy_rows((1.5, -0.5)), policy_loss(POLICY))
    entropy = 0.0
    for tokens, prompt_tokens in EXAMPLES:
        logps = log_softmax(logits_of(model, tokens))[prompt_tokens - 1 : -1]
        entropy -= (np.exp(logps) * logps).sum()
    assert float(aux["tokens"]) == COMPLETION_TOKENS
    assert float(aux["entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert "kl" not in aux


def test_ratio_clip_and_kl_in_one_loss(model):
    # Old logps ln 2 below: the ratio is 2 everywhere. Row 0 (A = 1) is clipped at 1.3, row 1 (A = -1) is not.
    # The reference is ln 2 above: k3 = 2 - 1 - ln 2 a token.
    logps = logps_of(model)
    batch = policy_rows((1.0, -1.0), logps - np.float32(LN2), logps + np.float32(LN2))
    (loss, aux), _ = gradients(model, batch, policy_loss(WITH_KL))
    assert float(aux["clipped"]) == 3
    assert float(aux["kl"]) == pytest.approx(8 * (1 - LN2), rel=1e-4)
    assert float(loss) == pytest.approx((3 * -1.3 + 5 * 2) / 8 + 0.5 * (1 - LN2), rel=1e-4)


def test_at_the_reference_the_penalty_has_no_gradient(model):
    logps = logps_of(model)
    (loss, _), slope = gradients(model, policy_rows((0.0, 0.0), logps, logps), policy_loss(WITH_KL))
    assert abs(float(loss)) < 1e-6
    # k1's would be 0.5 * sum(weight * grad logp): a random walk at every step.
    np.testing.assert_allclose(flat(slope), 0, atol=1e-5)
