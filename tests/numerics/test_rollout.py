"""Generation against full forward passes, and the dependencies of its sampling noise."""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from showwork import batching, devices, rollout, sampling
from showwork.config import Mesh
from showwork.sampling import choose
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows
from showwork.training.packing import lay_out
from showwork.tunix_adapter import gemma
from tests.numerics.conftest import ONE_DEVICE, SUPERVISED, VOCABULARY, WHOLE, log_softmax

PAD, EOS, BOS = 0, 1, 2
# Unequal lengths; the first is longer than the window of 8, and with 16 more tokens twice so.
PROMPTS = [[BOS, *range(10, 23)], [BOS, 30, 31], [BOS, *range(40, 47)], [BOS]]
TOKENS = 16
SAMPLED, GREEDY = rollout.Sampling(), rollout.Sampling(greedy=True)


def generate(model: Any, prompts: list[list[int]], **options: Any) -> rollout.Generated:
    settings = {"generations": 1, "key": jax.random.key(0), **options}
    sampling, stop_ids = settings.pop("sampling", SAMPLED), settings.pop("stop_ids", (EOS,))
    decoding = rollout.Decoding(sampling, max_tokens=TOKENS, stop_ids=stop_ids, pad_id=PAD)
    return rollout.generate(model, rollout.left_pad(prompts, pad_id=PAD), decoding=decoding, **settings)


# -------------------------------------------------------------------------------------------------- generation


def test_left_padding_to_the_bucket():
    padded = rollout.left_pad([[5, 6, 7], [8]], pad_id=PAD)
    assert padded.tolist() == [[0] * 13 + [5, 6, 7], [0] * 15 + [8]]
    assert (
        rollout.left_pad([[1] * 17], pad_id=PAD).shape == rollout.left_pad([[1]], pad_id=PAD, width=20).shape == (1, 32)
    )


def test_greedy_is_argmax_by_whole_passes(model, logits_of):
    # No cache, no left padding and one prompt at a time give the same tokens as one batch with a cache.
    found = generate(model, PROMPTS, sampling=GREEDY, stop_ids=())
    for prompt, tokens in zip(PROMPTS, found.tokens, strict=True):
        ids = list(prompt)
        for token in tokens:
            logits = logits_of(model, ids)[-1]
            logits[PAD] = -np.inf
            assert int(logits.argmax()) == token
            ids.append(int(token))
    assert len(PROMPTS[0]) + TOKENS > 3 * model.config.sliding_window_size
    assert found.is_truncated.all()


def test_an_adapted_model_generates_as_its_whole_passes_say(adapted, logits_of):
    # Qwix sets attributes of the modules at each call, which JAX forbids inside a loop that began outside of it.
    found = generate(adapted, PROMPTS, sampling=GREEDY, stop_ids=())
    for prompt, tokens in zip(PROMPTS, found.tokens, strict=True):
        ids = list(prompt)
        for token in tokens[:4]:
            logits = logits_of(adapted, ids)[-1]
            assert int(logits[1:].argmax()) + 1 == token
            ids.append(int(token))


def test_wider_left_padding_changes_nothing(model):
    narrow = generate(model, PROMPTS, sampling=GREEDY, stop_ids=())
    wide = np.pad(rollout.left_pad(PROMPTS, pad_id=PAD), ((0, 0), (16, 0)))
    decoding = rollout.Decoding(GREEDY, max_tokens=TOKENS, stop_ids=(), pad_id=PAD)
    wider = rollout.generate(model, wide, key=jax.random.key(0), decoding=decoding, generations=1)
    np.testing.assert_array_equal(narrow.tokens, wider.tokens)


def test_the_stop_token_is_kept_and_counted_and_pad_follows(model):
    free = generate(model, PROMPTS, sampling=GREEDY, stop_ids=())
    stop = int(free.tokens[1, 4])  # a token that row 1 writes in the middle
    found = generate(model, PROMPTS, sampling=GREEDY, stop_ids=(stop,))
    for row, whole in enumerate(free.tokens):
        ends = np.flatnonzero(whole == stop)
        length = ends[0] + 1 if len(ends) else TOKENS
        assert found.lengths[row] == length
        assert found.tokens[row].tolist() == [*whole[:length], *[PAD] * (TOKENS - length)]
        assert found.is_truncated[row] == (not len(ends))
    assert found.lengths[1] <= 5


def test_a_stop_at_the_very_end_is_no_truncation(model):
    free = generate(model, PROMPTS, stop_ids=())
    row = next(i for i, tokens in enumerate(free.tokens) if tokens[-1] not in tokens[:-1])
    found = generate(model, PROMPTS, stop_ids=(int(free.tokens[row, -1]),))
    assert found.lengths[row] == TOKENS
    assert not found.is_truncated[row]


def test_texts_are_without_the_stop_token(words):
    ids = words.encode("Tom has 5")
    found = rollout.Generated(
        prompt_tokens=np.zeros((2, 1), int),
        tokens=np.array([[*ids, EOS, PAD], [*ids, ids[0], ids[0]]]),
        lengths=np.array([len(ids) + 1, len(ids) + 2]),
        is_truncated=np.array([False, True]),
    )
    ended, truncated = found.completions(words, (EOS,))
    assert (ended.text, ended.tokens, ended.truncated) == ("Tom has 5", len(ids) + 1, False)
    assert (truncated.text, truncated.truncated) == (words.decode([*ids, ids[0], ids[0]]), True)


# ------------------------------------------------------------------------------------- slots, batches and columns


@pytest.fixture
def traced_anew():
    """A part of the decode step that a test replaces is traced again, and forgotten afterwards."""
    advance = batching.advance
    advance.clear_cache()
    yield
    advance.clear_cache()


@pytest.fixture
def sizes(monkeypatch, traced_anew):
    """How many rows each decode step advances."""
    found: list[int] = []

    def recording(logits, keys, sampling):
        jax.debug.callback(lambda _: found.append(len(logits)), logits[0, 0], ordered=True)
        return choose(logits, keys, sampling)

    monkeypatch.setattr(batching, "choose", recording)
    return found


def assert_same(found: rollout.Generated, wanted: rollout.Generated) -> None:
    for name in ("prompt_tokens", "tokens", "lengths", "is_truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_a_batch_is_quartered_down_to_the_smallest():
    assert [rollout.next_size(rows, 112) for rows in (1024, 256, 130, 128, 127, 64)] == [256, 64, 32, 32, 0, 0]
    # A row that never stops runs alone, or nearly so, if it may write 257 tokens or more.
    assert [rollout.next_size(rows, 256) for rows in (64, 16)] == [0, 0]
    assert [rollout.next_size(rows, 257) for rows in (64, 16, 15, 4)] == [16, 4, 0, 0]


# Greedily, this model writes one token over and over.
@pytest.mark.parametrize(
    ("sampling", "stopped"), [(SAMPLED, (0, 1, 2, 3)), (GREEDY, (0, 1, 2))], ids=["sampled", "greedy"]
)
def test_leaving_out_rows_that_have_stopped_changes_no_token(model, monkeypatch, sizes, sampling, stopped):
    # Four prompts twice; what some write after 3, 6, 9 and 12 tokens is a stop: rows end at different steps.
    options = {"sampling": sampling, "generations": 2}
    monkeypatch.setattr(rollout, "SMALLEST_BATCH", 8)
    free = generate(model, PROMPTS, **options, stop_ids=())
    options["stop_ids"] = tuple(int(free.tokens[2 * i, 3 * i + 3]) for i in stopped)
    whole = generate(model, PROMPTS, **options)
    assert len(set(whole.lengths.tolist())) > 1

    jax.effects_barrier()
    sizes.clear()
    monkeypatch.setattr(rollout, "SMALLEST_BATCH", 1)
    shrinking = generate(model, PROMPTS, **options)
    jax.effects_barrier()
    assert_same(shrinking, whole)
    # A step costs 2 rows instead of 8 as soon as no more than 2 still run.
    running = [int((whole.lengths > step).sum()) for step in range(whole.lengths.max())]
    assert sizes == [2 if rows <= 2 else 8 for rows in running]
    assert {*sizes} == {8, 2}


def counted(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, int]:
    calls = dict.fromkeys(names, 0)

    def count(name: str) -> None:
        function = getattr(batching, name)

        def counting(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(batching, name, counting)

    for name in names:
        count(name)
    return calls


@pytest.mark.parametrize("bucket", [256, 4], ids=["one cache", "a cache that grows"])
@pytest.mark.parametrize(("sampling", "generations"), [(SAMPLED, 2), (GREEDY, 1)], ids=["sampled", "greedy"])
def test_waiting_prompts_where_rows_have_stopped_change_no_token(
    model, monkeypatch, sizes, sampling, generations, bucket
):
    prompts = [*PROMPTS, *PROMPTS[::-1], *PROMPTS[1:]]  # 11, which 4 slots don't divide
    options: dict[str, Any] = {"sampling": sampling, "generations": generations}
    # Sampled, a tenth of the tokens ends a row; greedily, every token after the first two prompts.
    free = generate(model, prompts, **options, stop_ids=())
    stops = {int(token) for token in free.tokens[: 2 * generations, 0]} if sampling.greedy else range(50, 56)
    options["stop_ids"] = tuple(stops)
    whole = generate(model, prompts, **options)
    assert {1, TOKENS} <= {*whole.lengths.tolist()}

    jax.effects_barrier()
    sizes.clear()
    monkeypatch.setattr(rollout, "CACHE_BUCKET", bucket)
    monkeypatch.setattr(rollout, "SMALLEST_BATCH_IF_LONG", 4)  # 4 slots are never cut to 1
    calls, told = counted(monkeypatch, "put", "shift", "widen"), []
    found = generate(model, prompts, **options, slots=rollout.Slots(4), on_rows=told.append)
    jax.effects_barrier()
    assert_same(found, whole)
    assert calls["put"] == len(prompts) - 4 // generations  # one prompt a refill, after those of the first prefill
    assert calls["shift"] > 0
    assert (calls["widen"] > 0) == (bucket == 4)
    assert told == sorted(told)
    assert told[-1] == len(prompts) * generations
    # In calls of 4, each lasts as long as its longest row; the slots are kept busy instead.
    assert {*sizes} == {4}
    assert len(sizes) < sum(whole.lengths[i : i + 4].max() for i in range(0, len(whole.lengths), 4))


def test_a_cache_that_grows_changes_no_token(model, monkeypatch):
    whole = generate(model, PROMPTS, stop_ids=())
    monkeypatch.setattr(rollout, "CACHE_BUCKET", 5)
    calls = counted(monkeypatch, "widen", "shift")
    assert_same(generate(model, PROMPTS, stop_ids=()), whole)
    assert calls == {"widen": 2, "shift": 0}  # 5 columns for 16 tokens, then 10, then 16


def test_more_slots_than_rows_change_no_token(model):
    assert_same(generate(model, PROMPTS[:3], slots=rollout.Slots(8)), generate(model, PROMPTS[:3]))


# ------------------------------------------------------------------------------------------------------- noise


def test_noise_depends_on_key_row_and_step_alone(model):
    # Four prompts twice = rows 0 to 7. The same prompts in two calls of the same shape, from rows 0 and 4.
    whole = generate(model, [*PROMPTS, *PROMPTS], stop_ids=())
    first, second = (generate(model, PROMPTS, stop_ids=(), first_row=row) for row in (0, 4))
    np.testing.assert_array_equal(whole.tokens, np.concatenate([first.tokens, second.tokens]))
    assert (first.tokens != second.tokens).any(axis=1).all()  # the same prompts, other rows, other noise


def test_generations_are_rows_of_their_own(model):
    found = generate(model, PROMPTS, stop_ids=(), generations=2)
    assert found.prompt_tokens[::2].tolist() == found.prompt_tokens[1::2].tolist()
    repeated = [prompt for prompt in PROMPTS for _ in range(2)]
    np.testing.assert_array_equal(found.tokens, generate(model, repeated, stop_ids=()).tokens)


def test_another_step_has_another_noise(model):
    # One key for ever, as Tunix's rollout has it, would write the same completions at every step.
    key = jax.random.key(0)
    steps = [generate(model, PROMPTS, stop_ids=(), key=jax.random.fold_in(key, step)).tokens for step in range(3)]
    assert all((a != b).any(axis=1).all() for a, b in ((steps[0], steps[1]), (steps[1], steps[2])))
    np.testing.assert_array_equal(
        steps[0], generate(model, PROMPTS, stop_ids=(), key=jax.random.fold_in(key, 0)).tokens
    )


def test_pad_is_never_sampled(model):
    # Nearly uniform over 64 tokens at temperature 50: pad would come up in some 2 of 128 draws a call.
    hot = rollout.Sampling(temperature=50.0)
    for step in range(8):
        found = generate(model, [*PROMPTS, *PROMPTS], stop_ids=(), sampling=hot, key=jax.random.key(step))
        assert (found.tokens != PAD).all()
        assert (found.lengths == TOKENS).all()


# ------------------------------------------------------------------------------------------------------ choose

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04], np.float32))


def draws(logits: np.ndarray, count: int, **options: Any) -> np.ndarray:
    settings = rollout.Sampling(**{"temperature": jnp.float32(1), **options})
    keys = jax.random.split(jax.random.key(7), count)
    return np.asarray(choose(jnp.tile(logits, (count, 1)), keys, settings))


def assert_frequencies(chosen: np.ndarray, probabilities: list[float]) -> None:
    """Each within 4 standard deviations of its binomial; exactly absent where the probability is 0."""
    for token, p in enumerate(probabilities):
        sigma = (p * (1 - p) / len(chosen)) ** 0.5
        assert abs((chosen == token).mean() - p) <= 4 * sigma, token


def test_frequencies_are_the_softmax():
    assert_frequencies(draws(LOGITS, 20_000), [0.4, 0.3, 0.2, 0.06, 0.04])


def test_temperature_sharpens():
    # At 1/2 the probabilities are squared: 0.16 0.09 0.04 0.0036 0.0016 over their sum.
    squared = np.array([0.16, 0.09, 0.04, 0.0036, 0.0016])
    assert_frequencies(draws(LOGITS, 20_000, temperature=jnp.float32(0.5)), list(squared / squared.sum()))


def test_top_k_keeps_the_likeliest():
    assert_frequencies(draws(LOGITS, 20_000, top_k=2), [4 / 7, 3 / 7, 0, 0, 0])


def test_top_p_keeps_what_first_reaches_it():
    # 0.4 + 0.3 < 0.75 ≤ 0.4 + 0.3 + 0.2: three tokens stay.
    assert_frequencies(draws(LOGITS, 20_000, top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0, 0])


def test_a_tiny_top_p_and_top_k_1_are_greedy():
    assert (draws(LOGITS, 200, top_p=1e-6) == 0).all()
    assert (draws(LOGITS, 200, top_k=1) == 0).all()


def test_a_top_k_beyond_the_vocabulary_keeps_everything():
    np.testing.assert_array_equal(draws(LOGITS, 200, top_k=100), draws(LOGITS, 200))


def test_temperature_to_zero_is_greedy():
    assert (draws(LOGITS, 200, temperature=jnp.float32(1e-4)) == 0).all()


def test_greedy_ignores_keys_temperature_and_top_p():
    # In Tunix, temperature 0 with a top_p gives pad tokens.
    assert (draws(LOGITS, 5, greedy=True, temperature=jnp.float32(0), top_p=0.5, top_k=1) == 0).all()


def test_ties_at_a_threshold_stay():
    assert set(draws(np.zeros(4, np.float32), 200, top_k=2)) == {0, 1, 2, 3}


@pytest.mark.parametrize(("vocabulary", "k"), [(7, 3), (64, 64), (640, 1), (640, 9), (4096, 50), (4100, 50)])
@pytest.mark.parametrize("values", [3, 10**6])
def test_the_kth_largest_is_that_of_the_sorted_row(vocabulary, k, values):
    # Of 3 values, most are ties.
    logits = np.random.default_rng(k).integers(0, values, (5, vocabulary)).astype(np.float32)
    expected = np.sort(logits, axis=-1)[:, -k][:, None]
    np.testing.assert_array_equal(sampling._kth_largest(jnp.asarray(logits), k), expected)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("values", [3, 10**6])
def test_the_nucleus_is_that_of_the_sorted_row(top_p, values):
    weights = np.random.default_rng(0).integers(0, values, (5, 300)).astype(np.float32)
    probabilities = weights / weights.sum(-1, keepdims=True)
    kept = probabilities > np.asarray(sampling._below_nucleus(jnp.asarray(probabilities), top_p))
    for row, mask in zip(probabilities, kept, strict=True):
        above = np.array([row[row > p].sum() for p in row])  # of the tokens that come before this one
        np.testing.assert_array_equal(mask, above < top_p)


@pytest.mark.parametrize("size", [3, 5, 60])
def test_blocks_of_a_vocabulary_change_no_greedy_token_and_no_frequency(monkeypatch, size):
    # 3, 5 and 60 tokens a block of 60: the first of two equal ones wins, though blocks apart.
    monkeypatch.setattr(sampling, "BLOCK", size)
    logits = np.full(60, -np.inf, np.float32)
    logits[[4, 5, 29, 30, 59]] = LOGITS
    assert (draws(logits, 5, greedy=True) == 4).all()
    twice = np.where(np.arange(60) == 59, logits[4], logits)
    assert (draws(twice, 5, greedy=True) == 4).all()
    chosen = draws(logits, 20_000)
    assert_frequencies(np.searchsorted([4, 5, 29, 30, 59], chosen), [0.4, 0.3, 0.2, 0.06, 0.04])
    assert set(chosen) == {4, 5, 29, 30, 59}
    assert set(draws(logits, 200, top_k=2)) == {4, 5}


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1.0])
def test_the_ends_of_the_uniform_draw(monkeypatch, uniform):
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(uniform))
    ruled_out = np.array([-np.inf, 0.0, 1.0, -np.inf, -np.inf], np.float32)
    assert (draws(ruled_out, 1) == (1 if uniform == 0 else 2)).all()


def test_a_token_of_probability_zero_is_never_chosen(monkeypatch):
    # XLA sums in blocks: of 4096 tokens with 64 possible ones, the cumulative sum rises by rounding at tokens of
    # probability 0. Draws at exactly those places must still give a possible token.
    monkeypatch.setattr(sampling, "BLOCK", 4096)
    logits = jax.random.normal(jax.random.key(1), (1, 4096)) * 3
    probabilities = jax.nn.softmax(jnp.where(logits >= jax.lax.top_k(logits, 64)[0][:, -1:], logits, -jnp.inf))
    cumulative, possible = np.asarray(jnp.cumsum(probabilities, axis=-1))[0], np.asarray(probabilities)[0] > 0
    for draw in cumulative[:-1][~possible[1:] & (np.diff(cumulative) > 0)]:
        monkeypatch.setattr(jax.random, "uniform", lambda key, draw=draw: jnp.float32(draw))
        assert possible[draws(np.asarray(logits[0]), 1, top_k=64)[0]]


# ------------------------------------------------------------------------------------------ sampler and trainer


@pytest.fixture(scope="module")
def half(model, spec) -> nnx.Module:
    """The same model in bfloat16, its weights still in float32: as they are trained."""
    made = gemma.build_model(spec, vocabulary=VOCABULARY, dtype="bfloat16")
    nnx.update(made, nnx.state(model))
    return made


# Logits of some 5 in float32; in bfloat16 they are products of hidden states of eight bits.
@pytest.mark.parametrize(("kind", "rounding"), [("model", 1e-4), ("adapted", 1e-4), ("half", 5 * 2**-8)])
@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_sampler_and_trainer_see_the_same_probabilities(request, monkeypatch, traced_anew, kind, rounding, sampling):
    policy, seen, steps = request.getfixturevalue(kind), [], 10

    def recording(logits, keys, sampling):
        jax.debug.callback(lambda values: seen.append(np.asarray(values)), logits, ordered=True)
        return choose(logits, keys, sampling)

    monkeypatch.setattr(batching, "choose", recording)
    found = rollout.generate(
        policy, rollout.left_pad(PROMPTS, pad_id=PAD), key=jax.random.key(0), generations=1,
        decoding=rollout.Decoding(sampling, max_tokens=steps, stop_ids=(), pad_id=PAD),
    )  # fmt: skip
    jax.effects_barrier()
    laid_out = lay_out(found, pad_id=PAD)
    weights = laid_out.pop("mask").astype(np.float32)
    rows = Rows(**laid_out, weights=weights)
    logps_of = functools.partial(completion_logps, policy, loss=SUPERVISED, split=WHOLE, mesh=ONE_DEVICE)
    trained = logps_of(rows)
    assert len(seen) == steps
    if kind == "half":
        whole = completion_logps(request.getfixturevalue("model"), rows, loss=SUPERVISED, split=WHOLE, mesh=ONE_DEVICE)
        assert np.abs(trained - whole).max() > 1e-3  # it is computed in bfloat16
    for step in range(steps):
        # The sampler shares out pad's probability; the trainer leaves it where it is.
        changed = rows.tokens.copy()
        positions = [len(prompt) + step for prompt in PROMPTS]
        changed[range(len(PROMPTS)), positions] = PAD
        pads = logps_of(rows._replace(tokens=changed))
        for row, position in enumerate(positions):
            token, logits = found.tokens[row, step], seen[step][row]
            assert logits[PAD] == -np.inf
            sampled = log_softmax(logits[1:])[token - 1] + np.log1p(-np.exp(pads[row, position]))
            assert sampled == pytest.approx(trained[row, position], abs=rounding)


# ----------------------------------------------------------------------------------------------- several devices


def mesh_of(fsdp: int, tp: int = 1) -> jax.sharding.Mesh:
    return devices.make_mesh(Mesh(fsdp=fsdp, tp=tp))


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_tokens_do_not_depend_on_the_devices(model, monkeypatch, traced_anew, caplog, count):
    # 11 prompts twice, which neither the devices nor the slots divide, and completions that end at different steps:
    # rows stop, are replaced, and are left out on each device for itself.
    prompts = [*PROMPTS, *PROMPTS[::-1], *PROMPTS[1:]]
    options: dict[str, Any] = {"generations": 2, "stop_ids": tuple(range(50, 56))}
    whole = generate(model, prompts, **options)
    assert {1, TOKENS} <= {*whole.lengths.tolist()}
    calls = counted(monkeypatch, "put", "take", "widen", "shift")
    monkeypatch.setattr(rollout, "CACHE_BUCKET", 4)
    for name in ("SMALLEST_BATCH", "SMALLEST_BATCH_IF_LONG"):
        monkeypatch.setattr(rollout, name, 1)
    caplog.set_level(logging.DEBUG, "jax._src.interpreters.pxla")
    told: list[int] = []
    slots = rollout.Slots(9, mesh_of(count))  # rounded up to 12 or to 16
    assert_same(generate(model, prompts, **options, slots=slots, on_rows=told.append), whole)
    assert min(calls.values()) > 0, calls
    assert told == sorted(told)
    assert told[-1] == len(prompts) * 2
    # Caches of 4, 8 and 16 columns after the prompt's 16, and fewer rows at the end. None is compiled a second time,
    # as it would be where an array is of a weak type or lies elsewhere.
    assert sum("Compiling jit(advance)" in record.getMessage() for record in caplog.records) == 4


def test_weights_in_parts_change_no_token(model, monkeypatch):
    # As on accelerators: each matrix over two devices, the rows over two pairs of them.
    monkeypatch.setattr(devices, "_is_cpu", lambda mesh: False)
    mesh, prompts = mesh_of(2, 2), [*PROMPTS, *PROMPTS[1:]]
    whole = generate(model, prompts, sampling=GREEDY, stop_ids=())
    assert_same(generate(model, prompts, sampling=GREEDY, stop_ids=(), slots=rollout.Slots(4, mesh)), whole)
    placed = nnx.clone(model)
    devices.place(placed, mesh)
    weights = devices.for_rollout(gemma.computing(placed)[1], devices.rollout_mesh(mesh, tp=1))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(weights))
    weights = devices.for_rollout(gemma.computing(placed)[1], mesh)
    kernel = weights["layers"][0]["mlp"]["gate_proj"]["kernel"][...]
    assert kernel.addressable_shards[0].data.shape == (32, 64 // 2)  # along tp, and whole along fsdp


def test_caches_are_shared_out_by_key_heads_where_weights_are():
    cache = jnp.zeros((4, 6, 2 * 16))
    rows = {"k": cache, "visible": cache[..., 0]}
    placed = rollout.Slots(4, mesh_of(2, 2)).spread(rows, key_heads=2)
    assert placed["k"].addressable_shards[0].data.shape == (2, 6, 16)
    assert placed["visible"].addressable_shards[0].data.shape == (2, 6)
    placed = rollout.Slots(4, mesh_of(2, 2)).spread(rows, key_heads=1)
    assert placed["k"].addressable_shards[0].data.shape == (2, 6, 32)


def test_rows_stay_on_their_devices_whatever_is_done_with_them(model, traced_anew):
    mesh, count = mesh_of(4), 8
    graphdef, state = gemma.computing(model)
    state = devices.for_rollout(state, mesh)
    decoding = rollout._on_device(rollout.Decoding(SAMPLED, max_tokens=TOKENS, stop_ids=(EOS,), pad_id=PAD))

    def start(prompts: list[list[int]], columns: int) -> batching.Rows:
        placed = devices.spread(jnp.asarray(rollout.left_pad(prompts, pad_id=PAD)), mesh)
        sizes = batching.Sizes(generations=2, columns=columns, tokens=TOKENS)
        return batching.prefill(graphdef, state, placed, jnp.int32(0), key=jax.random.key(0), pad_id=PAD, sizes=sizes)

    def check(rows: batching.Rows) -> batching.Rows:
        """That nothing of the size of the cache or of the logits is on more than its own device."""
        for leaf in (rows.logits, rows.visible, *(layer[part] for layer in rows.cache.values() for part in "kv")):
            assert {shard.data.shape for shard in leaf.addressable_shards} == {(len(leaf) // 4, *leaf.shape[1:])}
        return rows

    with mesh:
        rows = check(start(PROMPTS, 20))
        assert len(rows.number) == count
        rows, column = batching.advance(
            graphdef, state, rows, jnp.int32(16), until=jnp.int32(18), least=jnp.int32(0), options=decoding, shards=4
        )
        check(rows)
        slots = np.zeros((4, 1), np.int32) + np.array([[1], [0], [1], [0]], np.int32)
        smaller = check(batching.take(rows, slots))
        assert smaller.number.tolist() == [1, 2, 5, 6]  # of each device's own two rows
        new = start(PROMPTS, 16)._replace(number=100 + jnp.arange(count))
        rows = check(
            batching.put(check(batching.widen(rows, columns=24)), check(new), np.tile([[1, 0]], (4, 1)), column)
        )
        assert rows.number.tolist() == [101, 100, 103, 102, 105, 104, 107, 106]
        check(batching.shift(rows, jnp.int32(2)))
