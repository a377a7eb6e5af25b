"""The bench's arithmetic; tests/slow/test_bench.py runs it."""

import pytest
from bench import limit
from bench.compare import figure, quartiles

CONFIG = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 1024,
}  # fmt: skip


def test_parameters_by_hand():
    # Query and output 128 * 4 * 32 each, key and value 128 * 32 each, three MLP kernels, six norms.
    layer = 2 * 16_384 + 2 * 4096 + 3 * 128 * 384 + 4 * 128 + 2 * 32
    assert limit.parameters(CONFIG) == 4 * layer + 1024 * 128 + 128 == 887_168


def test_flops_by_hand():
    # Two sequences: 6 N * 30 tokens, and 12 * 4 layers * 4 heads * 32 * (10² + 20²).
    assert limit.training_flops(CONFIG, [10, 20]) == 6 * 887_168 * 30 + 12 * 4 * 4 * 32 * 500
    # Two prompts of 10, and 6 tokens written: two rows of 13, whose tokens see 13 / 2 others on average.
    assert limit.decoding_flops(CONFIG, [10, 10], 6) == 2 * 887_168 * 26 + 4 * 4 * 4 * 32 * 2 * 13 * 13 / 2


def test_a_ratio_is_taken_round_by_round():
    # A machine that slows down tenfold in the second round moves the medians, and not the ratio.
    row = figure("sft", "w", "p", "tokens/s", [10.0, 1.0, 12.0], [5.0, 0.5, 4.0], at_least=1.5)
    assert (row.ours, row.theirs) == (10.0, 4.0)
    assert (row.low, row.ratio, row.high) == (2.0, 2.0, 2.5)
    seconds = figure("grpo", "w", "p", "s", [1.0], [3.0], at_least=3.0, more_is_better=False)
    assert seconds.ratio == 3.0


@pytest.mark.parametrize(("values", "expected"), [([4.0], (4, 4, 4)), ([1.0, 2.0, 3.0, 4.0, 5.0], (2, 3, 4))])
def test_quartiles(values, expected):
    assert quartiles(values) == expected
