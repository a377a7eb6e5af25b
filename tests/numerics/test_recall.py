"""Pre-training rows of a model from scratch, the memory that training saves, and the devices of a CPU."""

import jax
import numpy as np
import pytest
from flax import nnx

from showwork import devices, rollout
from showwork.config import Mesh
from showwork.tokenizer import SYMBOLS
from showwork.training import data
from showwork.training.losses import Rows
from showwork.training.passes import Split, in_passes
from showwork.tunix_adapter import gemma
from tests.numerics.conftest import SUPERVISED, VOCABULARY, WHOLE

ROW = Rows(
    tokens=np.array([[2, 11, 12, 13, 14, 15, 16, 17]], np.int32), positions=np.arange(8, dtype=np.int32)[None],
    segments=np.ones((1, 8), np.int32), weights=np.full((1, 8), 1 / 7, np.float32),
)  # fmt: skip


def test_what_the_loss_counts_was_read_before_in_the_same_order(words):
    rows = data.recall_rows(words, rows=50, max_tokens=64, seed=0)
    assert len(rows) == 50
    for row in rows:
        assert len(row.tokens) == len(row.trained) <= 64
        assert row.tokens[0] == words.bos_id()
        pairs = list(zip(row.tokens[:-1], row.tokens[1:], strict=True))
        counted = [place for place, counts in enumerate(row.trained[1:]) if counts]
        assert counted
        assert all(pairs[place] in pairs[:place] for place in counted)


def test_recalled_tokens_are_ordinary_pieces(words):
    marks = {words.encode(symbol)[-1] for symbol in SYMBOLS} | {0, 1, 2, 3}
    assert not marks & set(words.word_ids())
    seen = {int(i) for row in data.recall_rows(words, rows=20, max_tokens=64, seed=1) for i in row.tokens[1:]}
    assert not marks & seen


def test_recall_rows_repeat_with_their_seed(words):
    first, again, other = (data.recall_rows(words, rows=3, max_tokens=64, seed=seed) for seed in (0, 0, 1))
    assert [row.tokens.tolist() for row in first] == [row.tokens.tolist() for row in again]
    assert [row.tokens.tolist() for row in first] != [row.tokens.tolist() for row in other]


def test_remat_changes_memory_and_no_gradient(model, spec):
    kept = gemma.build_model(spec, vocabulary=VOCABULARY, dtype="float32", remat=True)
    nnx.update(kept, nnx.state(model))

    def gradient(of):
        graphdef, state = nnx.split(of)
        loss = lambda state: in_passes(SUPERVISED, split=WHOLE, wrt=nnx.Param)(nnx.merge(graphdef, state), ROW)[0]  # noqa: E731
        return jax.make_jaxpr(jax.grad(loss))(state), jax.jit(jax.grad(loss))(state)

    (plain_program, plain), (program, found) = gradient(model), gradient(kept)
    assert "remat" not in str(plain_program)
    assert "remat" in str(program)
    for wanted, value in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)  # float32, summed in another order


def test_a_mesh_of_one_device_changes_no_token(model):
    prompts = np.array([[2, 11, 12, 13], [2, 14, 15, 16]], np.int32)
    options = {
        "key": jax.random.key(0), "generations": 2,
        "decoding": rollout.Decoding(rollout.Sampling(), max_tokens=6, stop_ids=(1,), pad_id=0),
    }  # fmt: skip
    alone = rollout.generate(model, prompts, **options)
    placed = nnx.clone(model)
    devices.place(placed, devices.make_mesh(Mesh(fsdp=1, tp=1)))
    np.testing.assert_array_equal(rollout.generate(placed, prompts, **options).tokens, alone.tokens)


# ------------------------------------------------------------------------------------------------ a step's rows


def examples(*lengths: int) -> list[data.Example]:
    """Of these lengths; the loss counts all tokens but the first, and the tokens are the example's number from 1."""
    return [
        data.Example(np.full(length, number, np.int32), (np.arange(length) > 0).astype(np.int32))
        for number, length in enumerate(lengths, start=1)
    ]


def steps(split: Split, *, rows_per_step: int = 3) -> list[Rows]:
    packed = data.packed_rows(examples(8, 7, 8, 6, 5), max_tokens=8, seed=None)
    return list(data.step_rows(packed, rows_per_step=rows_per_step, split=split))


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        (Split(1, 8, 4), [1, 2, 3]),
        (Split(1, 16, 4), [1, 2, 3, 0]),  # two rows a pass: a fourth is empty
        (Split(2, 8, 4), [1, 3, 2, 0]),  # in turn to two devices of two rows
        (Split(4, 99, 4), [1, 2, 3, 0]),
    ],
)
def test_rows_of_a_step_are_dealt_to_the_devices_in_turn(split, rows):
    first, last = steps(split)
    assert first.tokens[:, 0].tolist() == rows
    assert first.segments.any(axis=1).tolist() == [row > 0 for row in rows]
    # The last step has two rows, in as many places.
    assert last.tokens.shape == first.tokens.shape == (len(rows), 8)
    assert sorted(last.tokens[:, 0].tolist()) == [0] * (len(rows) - 2) + [4, 5]


@pytest.mark.parametrize("split", [Split(1, 10**6, 4), Split(1, 8, 4), Split(2, 8, 4), Split(4, 16, 4)])
def test_a_token_counts_the_same_wherever_its_row_is(split):
    # 7, 6 and 7 trained tokens, then 5 and 4. A mean of the means of rows would weigh a token of the second 7/6 times.
    for rows, trained in zip(steps(split), (20, 9), strict=True):
        assert (rows.weights > 0).sum() == trained
        np.testing.assert_allclose(rows.weights[rows.weights > 0], 1 / trained, rtol=1e-6)


def test_rows_have_the_positions_that_the_settings_say():
    packed = list(data.packed_rows(examples(3, 4, 12), max_tokens=16, seed=None))
    assert [len(row["tokens"]) for row in packed] == [16, 16]
    assert packed[0]["segments"].tolist() == [1] * 3 + [2] * 4 + [0] * 9
    assert packed[0]["positions"].tolist() == [0, 1, 2, 0, 1, 2, 3] + [0] * 9
