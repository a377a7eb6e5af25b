"""The end of a loss: log-probabilities, entropies and gradients by hand, and blocks that must not affect them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from showwork.training.head import Aux, Distribution, Head, Scored, Token
from showwork.tunix_adapter import gemma

LN2, LN3, LN5 = np.log(2), np.log(3), np.log(5)


@pytest.fixture
def no_nan():
    with jax.debug_nans(True):
        yield


# ------------------------------------------------------------------------------------------------ distributions


def distribution(logits: Any, targets: Any, *, cap: float | None = None, temperature: float = 1.0) -> Distribution:
    return Distribution(jnp.asarray(logits, jnp.float32), jnp.asarray(targets), cap, temperature)


@pytest.mark.usefixtures("no_nan")
def test_logp_and_entropy_by_hand():
    # Probabilities 1/2 1/4 1/4 and 1/5 3/5 1/5.
    logp, entropy = distribution([[LN2, 0.0, 0.0], [0.0, LN3, 0.0]], [0, 1]).token()
    np.testing.assert_allclose(logp, [-LN2, LN3 - LN5], rtol=1e-6)
    np.testing.assert_allclose(entropy, [LN2 / 2 + 2 * (LN2 * 2) / 4, LN5 - 0.6 * LN3], rtol=1e-6)


@pytest.mark.usefixtures("no_nan")
def test_a_constant_added_to_the_logits_changes_nothing():
    logits = np.array([[LN2, 0.0, 0.0], [0.0, LN3, 0.0]])
    for ours, shifted in zip(*(distribution(x, [0, 1]).token() for x in (logits, logits + 100)), strict=True):
        np.testing.assert_allclose(ours, shifted, atol=2e-5)


def test_temperature_divides_the_logits():
    # At temperature 2 the odds 4 : 1 become 2 : 1; without it the logp would be ln 4/5.
    logp, _ = distribution([[np.log(4), 0.0]], [0], temperature=2.0).token()
    np.testing.assert_allclose(logp, [np.log(2 / 3)], rtol=1e-6)


def test_a_cap_bends_the_logits_before_the_temperature_divides_them():
    # 3 tanh(x / 3) = ln 4 at the first token and 0 at the other: odds 4 : 1, at temperature 2 they are 2 : 1.
    logits = [[3 * np.arctanh(np.log(4) / 3), 0.0]]
    np.testing.assert_allclose(distribution(logits, [0], cap=3.0).token().logp, [np.log(4 / 5)], rtol=1e-6)
    logp, entropy = distribution(logits, [0], cap=3.0, temperature=2.0).token()
    np.testing.assert_allclose(logp, [np.log(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(entropy, [LN3 - 2 / 3 * LN2], rtol=1e-6)


def test_uniform_entropy_is_log_of_the_vocabulary():
    np.testing.assert_allclose(distribution(np.zeros((1, 5)), [3]).token().entropy, [LN5], rtol=1e-6)


def test_the_gradient_of_a_logp_is_onehot_minus_probabilities():
    slopes = distribution([[LN2, 0.0, 0.0]], [0]).slopes(jnp.ones(1))
    np.testing.assert_allclose(slopes, [[1 - 1 / 2, -1 / 4, -1 / 4]], atol=1e-6)
    # Times the gradient with respect to the logp, and through the temperature: odds 4 : 1 at 2 are 2 : 1.
    slopes = distribution([[np.log(4), 0.0]], [1], temperature=2.0).slopes(jnp.full(1, -6.0))
    np.testing.assert_allclose(slopes, [[-6 / 2 * -2 / 3, -6 / 2 * (1 - 1 / 3)]], atol=1e-6)
    # And through the cap, whose slope is 1 - tanh(x / c)^2: at ln 4 / 3 of the cap, and 1 at a logit of 0.
    capped = distribution([[3 * np.arctanh(np.log(4) / 3), 0.0]], [0], cap=3.0).slopes(jnp.ones(1))
    np.testing.assert_allclose(capped, [[(1 - 4 / 5) * (1 - (np.log(4) / 3) ** 2), -1 / 5]], atol=1e-6)


def naive_logp(logits: jax.Array, targets: jax.Array, cap: float | None, temperature: float) -> jax.Array:
    logits = logits if cap is None else cap * jnp.tanh(logits / cap)
    logps = jax.nn.log_softmax(logits / temperature, axis=-1)
    return jnp.take_along_axis(logps, targets[..., None], axis=-1)[..., 0]


@pytest.mark.usefixtures("no_nan")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_the_written_out_gradient_is_jaxs_own(cap, temperature):
    # Logits of some 5 are well into a cap of 3.
    keys = jax.random.split(jax.random.key(0), 3)
    logits, of_logps = jax.random.normal(keys[0], (2, 7, 11)) * 5, jax.random.normal(keys[1], (2, 7))
    targets = jax.random.randint(keys[2], (2, 7), 0, 11)
    found = Distribution(logits, targets, cap, temperature)
    logp, backward = jax.vjp(lambda logits: naive_logp(logits, targets, cap, temperature), logits)
    np.testing.assert_allclose(found.token().logp, logp, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.slopes(of_logps), backward(of_logps)[0], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- blocks

# Rows of two devices, which have different numbers of scored tokens; one row has none.
ROWS, LENGTH, WIDTH, VOCABULARY = 4, 6, 5, 11


def states(*, dtype: Any = jnp.float32) -> tuple[jax.Array, Scored, jax.Array]:
    """Hidden states, what is scored of them, and the table."""
    keys = jax.random.split(jax.random.key(0), 4)
    is_scored = jax.random.uniform(keys[2], (ROWS, LENGTH)) < 0.6
    is_scored = is_scored.at[:, 0].set(True).at[3].set(False)  # nothing predicts the first column
    weights = jnp.arange(1.0, ROWS * LENGTH + 1).reshape(ROWS, LENGTH) / 24  # unequal, so that a shuffled place shows
    tokens = jax.random.randint(keys[3], (ROWS, LENGTH), 0, VOCABULARY)
    hidden = jax.random.normal(keys[0], (ROWS, LENGTH, WIDTH)).astype(dtype)
    return hidden, Scored(tokens, is_scored, {"weights": weights}), jax.random.normal(keys[1], (VOCABULARY, WIDTH))


def term(token: Token, values: dict[str, jax.Array]) -> tuple[jax.Array, Aux]:
    """Curved in the logp, so that a gradient taken elsewhere shows."""
    weights = values["weights"]
    aux = {"logp": jnp.sum(token.logp * (weights > 0)), "entropy": jnp.sum(token.entropy * (weights > 0))}
    return jnp.sum(weights * jnp.exp(token.logp)), aux


def naive(hidden: jax.Array, scored: Scored, table: jax.Array, cap: float | None) -> tuple[jax.Array, Aux]:
    """The same over all logits at once, of hidden[:, t] for tokens[:, t + 1]."""
    logits = hidden[:, :-1] @ table.T
    logps = naive_logp(logits, scored.tokens[:, 1:], cap, 0.7)
    every = jax.nn.log_softmax((logits if cap is None else cap * jnp.tanh(logits / cap)) / 0.7, axis=-1)
    entropy = -jnp.sum(jnp.exp(every) * every, axis=-1)
    counts = scored.is_scored[:, 1:]
    aux = {"logp": jnp.sum(logps * counts), "entropy": jnp.sum(entropy * counts)}
    return jnp.sum(jnp.exp(logps) * scored.values["weights"][:, 1:] * counts), aux


@functools.cache
def whole(cap: float | None) -> Any:
    """((loss, sums), gradients of hidden states and table, log-probabilities of what is scored) of states()."""
    hidden, scored, table = states()

    @jax.jit
    def both(hidden: jax.Array, table: jax.Array) -> Any:
        logps = naive_logp(hidden[:, :-1] @ table.T, scored.tokens[:, 1:], cap, 0.7)
        logps = jnp.pad(jnp.where(scored.is_scored[:, 1:], logps, 0.0), ((0, 0), (0, 1)))
        found, slopes = jax.value_and_grad(naive, argnums=(0, 2), has_aux=True)(hidden, scored, table, cap)
        return found, slopes, logps

    return both(hidden, table)


def head(hidden: jax.Array, scored: Scored, table: jax.Array, *, devices: int, positions: int, cap: Any) -> Head:
    return Head.over(hidden, scored, table, devices=devices, positions=positions, cap=cap, temperature=0.7)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize(("devices", "positions"), [(1, 1), (1, 100), (2, 5), (4, 2)])
@pytest.mark.parametrize("columns", [256, 3])
def test_blocks_of_any_size_have_the_values_and_gradients_of_the_whole(monkeypatch, devices, positions, cap, columns):
    monkeypatch.setattr("showwork.training.head._COLUMNS", columns)  # of 5
    hidden, scored, table = states()
    (loss, aux), (of_hidden, of_table), wanted = whole(cap)

    @jax.jit
    def blocks(hidden: jax.Array, table: jax.Array) -> Any:
        over = head(hidden, scored, table, devices=devices, positions=positions, cap=cap)
        empty = jnp.zeros((devices, *table.shape))
        return over.sums(term), over.gradients(term, empty), over.logps()

    sums, (again, to_states, to_table), logps = blocks(hidden, table)
    for found in (sums, again):
        assert jax.tree.map(float, found) == (
            pytest.approx(float(loss), rel=1e-5),
            pytest.approx(jax.tree.map(float, aux), rel=1e-5),
        )
    np.testing.assert_allclose(to_states.reshape(hidden.shape), of_hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_table.sum(axis=0), of_table, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logps.reshape(ROWS, LENGTH), wanted, rtol=1e-5, atol=1e-6)


def test_as_many_blocks_are_made_as_the_fullest_device_needs():
    hidden, scored, table = states()
    counts = np.asarray(scored.is_scored[:, 1:].sum(axis=1))
    for devices, positions in ((1, 1), (1, 5), (2, 3), (4, 2), (1, 100)):
        fullest = counts.reshape(devices, -1).sum(axis=1).max()
        over = head(hidden, scored, table, devices=devices, positions=positions, cap=None)
        assert int(over._turns()) == -(-fullest // min(positions, ROWS * LENGTH // devices))
    nothing = scored._replace(is_scored=jnp.zeros_like(scored.is_scored))
    over = head(hidden, nothing, table, devices=2, positions=3, cap=None)
    assert int(over._turns()) == 0
    assert float(over.sums(term)[0]) == 0


def test_states_whose_next_token_is_not_scored_are_not_read():
    hidden, scored, table = states()
    is_read = np.pad(scored.is_scored[:, 1:], ((0, 0), (0, 1)))
    run = jax.jit(lambda x: head(x, scored, table, devices=2, positions=3, cap=None).gradients(term, None))
    (loss, _), to_states, _ = run(hidden)
    (again, _), to_spoilt, _ = run(jnp.where(is_read[..., None], hidden, jnp.nan))
    assert float(again) == float(loss)
    np.testing.assert_array_equal(to_spoilt, to_states)
    np.testing.assert_array_equal(to_states.reshape(hidden.shape)[~is_read], 0)


def test_entropy_is_a_measurement_without_gradient():
    hidden, scored, table = states()
    over = head(hidden, scored, table, devices=1, positions=5, cap=None)
    measured = lambda token, _: (jnp.sum(token.entropy), {})  # noqa: E731
    (entropy, _), to_states, to_table = over.gradients(measured, jnp.zeros((1, *table.shape)))
    assert float(entropy) > 1
    assert not np.any(to_states)
    assert not np.any(to_table)


# ---------------------------------------------------------------------------------------------- half precision


def test_half_precision_logits_are_float32():
    # 20 + 1/32 and 20: in bfloat16, whose numbers around 20 lie 1/8 apart, both would be 20, and each logp -ln 2.
    hidden = jnp.array([[[20.0, 1 / 32]] * 2], jnp.bfloat16)
    table = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    logits = gemma.unembed(hidden, table)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits[0, 0], [20 + 1 / 32, 20])
    scored = Scored(jnp.array([[0, 0]]), jnp.array([[False, True]]), {})
    over = Head.over(hidden, scored, table, devices=1, positions=4, cap=None, temperature=1.0)
    np.testing.assert_allclose(over.logps()[0, 0], -np.log1p(np.exp(-1 / 32)), atol=2e-6)


def test_half_precision_logits_are_summed_in_float32():
    # 4096 equal logits: in bfloat16 a sum of ones stalls at 256, and the entropy would be ln 256.
    logits = gemma.unembed(jnp.zeros((1, 8), jnp.bfloat16), jnp.zeros((4096, 8)))
    logp, entropy = Distribution(logits, jnp.array([5]), None, 1.0).token()
    np.testing.assert_allclose([logp[0], entropy[0]], [-12 * LN2, 12 * LN2], rtol=1e-6)


@pytest.mark.parametrize("positions", [1, 7, 600])
def test_the_tables_gradient_is_summed_in_float32(positions):
    # 600 times the same token with the same state, 1: both logits are 0, and each time the slopes are 1/2 and -1/2.
    hidden, table = jnp.ones((1, 601, 1), jnp.bfloat16), jnp.zeros((2, 1))
    is_scored = jnp.arange(601)[None] > 0
    scored = Scored(jnp.zeros((1, 601), jnp.int32), is_scored, {"weights": is_scored.astype(jnp.float32)})
    over = Head.over(hidden, scored, table, devices=1, positions=positions, cap=None, temperature=1.0)
    logps = lambda token, values: (jnp.sum(token.logp * values["weights"]), {})  # noqa: E731
    _, _, to_table = over.gradients(logps, jnp.zeros((1, 2, 1)))
    assert to_table.dtype == jnp.float32
    np.testing.assert_array_equal(to_table[0, :, 0], [300, -300])
    # In bfloat16, whose numbers from 128 on are whole, the sum would not get beyond 128.
    half, zero = (np.dtype(jnp.bfloat16).type(x) for x in (0.5, 0))
    assert functools.reduce(lambda total, _: total + half, range(600), zero) == 128
