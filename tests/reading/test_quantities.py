import pytest

from showwork.reading.quantities import operands, quantities


@pytest.mark.parametrize(
    ("question", "numbers"),
    [
        ("Ann has 3 boxes of 1,080 eggs", {"3", "1080"}),
        ("three-fifths of two dozen", {"3", "5", "2", "12"}),
        ("Half of it costs $2.50", {"2", "2.5"}),
        ("20% off", {"20", "0.2", "80", "0.8", "120", "1.2"}),
        ("150 percent", {"150", "1.5", "50", "0.5", "250", "2.5"}),
        ("1/2 cup and 1 1/2 cups", {"1", "2", "1.5"}),
        ("Someone often waits", set()),
    ],
)
def test_quantities(question, numbers):
    assert quantities(question) == numbers


def test_operands():
    assert operands("(1,080-.5)/2") == ["1080", "0.5", "2"]
    assert operands("-3*7") == ["3", "7"]
    assert operands("x") == []
