"""Traces against plain full forward passes, layer by layer: no packing, no chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from showwork.evaluation import probing
from showwork.prompts import render_prompt
from showwork.records import Problem
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows, policy_loss
from showwork.tunix_adapter import gemma, parameters
from tests.numerics.conftest import ONE_DEVICE, SUPERVISED, WHOLE, gradients, log_softmax, with_lora
from tests.numerics.test_losses import POLICY

PROBLEMS = [Problem(str(i), question, "", "1", ()) for i, question in enumerate(["5 + 3?", "How?", "4?"])]
COMPLETIONS = ["5 + 3 = 8", "12 * 4 = 48.\n", ""]
LAYERS = 2


@pytest.fixture(scope="module")
def model(spec, words):
    """With the whole vocabulary of the tokenizer."""
    model = gemma.build_model(spec, vocabulary=len(words), dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


def take(model, words, problems=PROBLEMS, completions=COMPLETIONS, late_layer=0.5):
    return probing.take_traces(model, words, problems, completions, system="", late_layer=late_layer, name="test")


def prompt_ids(words, problem):
    return [words.bos_id(), *words.encode(render_prompt(problem.question, system=""))]


def rows_of(words):
    """(prompt ids, completion ids) of the two completions that are not empty."""
    return [(prompt_ids(words, p), words.encode(c)) for p, c in zip(PROBLEMS, COMPLETIONS, strict=True) if c]


@pytest.fixture(scope="module")
def traces(model, words):
    return take(model, words)


@pytest.fixture(scope="module")
def lens(model, words, logits_of):
    """For each completion, the logits [LAYERS + 1, T, V] that models of the first 0, 1 and 2 layers give."""
    readings = []
    for depth in range(LAYERS + 1):
        shallow = nnx.clone(model)
        shallow.layers = nnx.List(list(shallow.layers)[:depth])
        readings.append([logits_of(shallow, p + c)[len(p) - 1 : -1] for p, c in rows_of(words)])
    return [np.stack(layers) for layers in zip(*readings, strict=True)]


def test_logp_and_entropy_are_those_of_the_models_own_logits(traces, lens, words):
    for trace, logits, (_, ids) in zip(traces, lens, rows_of(words), strict=False):
        logps = log_softmax(logits[-1])
        np.testing.assert_allclose(trace.logp, logps[range(len(ids)), ids], atol=6e-4)
        np.testing.assert_allclose(trace.entropy, -(np.exp(logps) * logps).sum(-1), atol=6e-4)


def test_settled_is_the_first_layer_after_which_the_top_stays(traces, lens):
    seen = set()
    for trace, logits in zip(traces, lens, strict=False):
        tops = logits.argmax(-1)
        wanted = [
            next(d for d in range(LAYERS + 1) if (tops[d:, t] == tops[-1, t]).all()) for t in range(tops.shape[1])
        ]
        assert list(trace.settled) == wanted
        seen |= set(wanted)
    assert len(seen) > 1


def test_objection_is_read_at_the_late_layer(traces, lens, words):
    digits = [words.encode(str(d))[0] for d in range(10)]
    for trace, logits, (_, ids) in zip(traces, lens, rows_of(words), strict=False):
        for t, token in enumerate(ids):
            others = [logits[1, t, digit] for digit in digits if digit != token]
            assert trace.objection[t] == pytest.approx(max(others) - logits[1, t, token], abs=6e-4)


def test_logp_and_entropy_equal_those_of_training(model, words, traces):
    prompt, written = rows_of(words)[1]
    tokens = np.array([prompt + written])
    weights = (np.arange(tokens.shape[1]) >= len(prompt))[None].astype(np.float32)
    positions, segments = np.arange(tokens.shape[1])[None], np.ones_like(tokens)
    rows = Rows(tokens, positions, segments, weights, advantages=weights)
    logps = completion_logps(model, rows, loss=SUPERVISED, split=WHOLE, mesh=ONE_DEVICE)
    np.testing.assert_allclose(traces[1].logp, logps[0, len(prompt) :], atol=6e-4)
    (_, aux), _ = gradients(model, rows, policy_loss(POLICY))
    assert sum(traces[1].entropy) == pytest.approx(float(aux["entropy"]), abs=6e-4 * len(written))


def test_an_adapter_is_part_of_every_layer(model, words, logits_of, traces):
    adapted = with_lora(model)
    for trace, plain, (prompt, ids) in zip(take(adapted, words), traces, rows_of(words), strict=False):
        logps = log_softmax(logits_of(adapted, prompt + ids)[len(prompt) - 1 : -1])[range(len(ids)), ids]
        np.testing.assert_allclose(trace.logp, logps, atol=6e-4)
        assert np.abs(np.array(trace.logp) - plain.logp).max() > 0.1


def test_without_weights_every_token_is_as_likely(model, words):
    blank = nnx.clone(model)
    blank.embedder.input_embedding[...] = jnp.zeros_like(blank.embedder.input_embedding[...])
    for trace in take(blank, words):
        size = len(trace.tokens)
        uniform = round(float(np.log(len(words))), 3)
        assert trace.entropy == (uniform,) * size
        assert trace.logp == (-uniform,) * size
        assert trace.objection == (0.0,) * size
        assert trace.settled == (0,) * size


def test_company_and_chunks_change_nothing(model, words, traces, monkeypatch):
    monkeypatch.setattr(probing, "LOGITS_AT_ONCE", 1)  # chunks of 16 positions
    long = "12 * 4 = 48. " * 4
    problems, completions = PROBLEMS * 7 + PROBLEMS[:1], [*COMPLETIONS * 7, long]
    pairs = [(prompt_ids(words, p), words.encode(c)) for p, c in zip(problems, completions, strict=True)]
    _, chunks, chunk = probing.pack(pairs, vocabulary=len(words)).at.shape
    assert (chunks > 1, chunk) == (True, 16)
    for number, trace in enumerate(take(model, words, problems, completions)[:-1]):
        alone = traces[number % 3]
        assert trace.tokens == alone.tokens
        assert trace.settled == alone.settled
        for name in ("entropy", "logp", "objection"):
            np.testing.assert_allclose(getattr(trace, name), getattr(alone, name), atol=2e-3)


def test_an_empty_completion_has_an_empty_trace(traces):
    assert traces[2] == probing.Trace((), (), (), (), ())


# --------------------------------------------------------------------------------------------------------- packing


def test_packing_by_hand():
    packed = probing.pack([([2, 7], [8]), ([2, 5, 6, 4] * 2, [9, 9, 9, 9, 9, 9]), ([2], [3, 1])], vocabulary=320)
    assert packed.tokens.shape == (probing.ROWS_PER_CALL, 16)
    np.testing.assert_array_equal(packed.tokens[0], [2, 5, 6, 4, 2, 5, 6, 4, 9, 9, 9, 9, 9, 9, 0, 0])
    np.testing.assert_array_equal(packed.tokens[1], [2, 7, 8, 2, 3, 1, *[0] * 10])
    np.testing.assert_array_equal(packed.positions[1], [0, 1, 2, 0, 1, 2, *[0] * 10])
    np.testing.assert_array_equal(packed.segments[1], [1, 1, 1, 2, 2, 2, *[0] * 10])
    assert packed.at.shape == (probing.ROWS_PER_CALL, 1, 16)
    np.testing.assert_array_equal(packed.at[1, 0], [1, 3, 4, *[0] * 13])
    assert packed.places == [(1, slice(0, 1)), (0, slice(0, 6)), (1, slice(1, 3))]


# ---------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    "text",
    [
        "<reasoning>\nCALC: 12 * 4 = 1,048.5 pages\n</reasoning>\n<answer>48</answer>",
        " leading and  two spaces ",
        "½ of €5 is naïve 😀!",
        "",
    ],
)
def test_pieces_join_to_the_text(words, text):
    ids = words.encode(text)
    pieces = probing.token_pieces(words, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_digit_is_a_piece_of_its_own_and_a_character_of_bytes_stands_at_its_last(words):
    assert probing.token_pieces(words, words.encode("=18")) == ["=", "1", "8"]
    assert probing.token_pieces(words, words.encode("5½")) == ["5", "", "½"]


def test_broken_bytes_join_too(words):
    ids = [*words.encode("½")[:1], *words.encode("Tom has 5 apples"), *words.encode("€")[:2]]
    assert "".join(probing.token_pieces(words, ids)) == words.decode(ids)
