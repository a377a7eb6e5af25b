"""Pre-training rows of a model from scratch, the memory that training saves, and the devices of a CPU."""

import jax
import numpy as np
from flax import nnx

from showwork import devices, rollout
from showwork.config import Mesh
from showwork.tokenizer import SYMBOLS
from showwork.training import data
from showwork.training.losses import supervised_loss
from showwork.tunix_adapter import gemma
from tests.numerics.conftest import VOCABULARY

ROW = {
    "tokens": np.array([[2, 11, 12, 13, 14, 15, 16, 17]], np.int32),
    "positions": np.arange(8, dtype=np.int32)[None],
    "segments": np.ones((1, 8), np.int32),
    "weights": np.full((1, 8), 1 / 7, np.float32),
}


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
        loss = lambda state: supervised_loss(nnx.merge(graphdef, state), **ROW)[0]  # noqa: E731
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


def test_a_row_is_as_wide_as_the_longest_example_needs():
    def width(*lengths: int) -> int:
        rows = [data.Example(np.zeros(length, np.int32), np.zeros(length, np.int32)) for length in lengths]
        return data.row_width(rows, max_tokens=160)

    assert (width(3, 64), width(3, 65), width(160)) == (64, 128, 160)
