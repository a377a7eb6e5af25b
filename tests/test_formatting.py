"""Numbers, tables and model text as text."""

import math

from showwork.formatting import (
    REPORT_LIMIT,
    TERMINAL_LIMIT,
    cell,
    code,
    count,
    fenced,
    fenced_in_report,
    markdown_table,
    p_value,
    percent,
    points,
    points_interval,
    report_table,
    share,
    text_table,
    visible_in_report,
    visible_in_terminal,
)


def test_text_helpers():
    assert fenced_in_report("a") == "```text\na\n```"
    assert fenced_in_report("a ```` b").startswith("`````text\n")
    assert code("a `b`") == "`` a `b` ``"
    assert code("a\n|b") == "`a |b`"
    assert cell("a|b <i> *x*\n`c`") == r"a\|b \<i\> \*x\* \`c\`"
    assert visible_in_report("é\ttab\nline\r\u2066\ud800") == "é\ttab\nline\\u000d\\u2066\\ud800"
    assert visible_in_report("a" + "\n" * 7 + "b\n\n\nc") == "a\n… 6 empty lines\nb\n\n\nc"
    cut = visible_in_report("x" * 100_000)
    assert len(cut) < REPORT_LIMIT + 50
    assert cut.endswith("… 96,000 more characters")
    table = report_table(("arm", "n"), [{"arm": "a|b\n", "n": 3}])
    assert table.splitlines() == ["| arm | n |", "| --- | ---: |", r"| a\|b | 3 |"]


def test_the_terminal_and_the_report_differ_on_purpose():
    assert visible_in_terminal("a" + "\n" * 7 + "b") == "a" + "\n" * 7 + "b"  # the report counts empty lines
    assert (visible_in_terminal("\ue000"), visible_in_report("\ue000")) == ("\\ue000", "\ue000")  # of private use
    assert (visible_in_terminal("a\u2028b"), visible_in_report("a\u2028b")) == ("a\u2028b", "a\\u2028b")
    assert visible_in_terminal("x" * (TERMINAL_LIMIT + 1000)).endswith("x… 1,000 more characters")
    assert fenced("a\x1b") == "```text\na\x1b\n```"  # as it is
    assert fenced_in_report("a: 1", "yaml") == "```yaml\na: 1\n```"
    rows = [{"arm": "a|*b*", "change": "+1.0"}, {"arm": "c", "change": "–"}]
    assert markdown_table(rows).splitlines() == [
        "| arm | change |",
        "| --- | ---: |",
        r"| a\|*b* | +1.0 |",
        "| c | – |",
    ]
    assert text_table(rows).splitlines() == ["arm    change", "a|*b*    +1.0", "c           –"]


def test_numbers_as_text():
    assert [points(x) for x in (0.4, -0.0123, 0.0, -0.0004)] == ["+40.0", "−1.2", "0.0", "0.0"]
    assert [p_value(x) for x in (1e-9, 0.0049, 0.0512, 1.0)] == ["<0.0001", "0.0049", "0.051", "1.000"]
    assert points_interval(-0.013, 0.073) == "−1.3 to +7.3"
    assert [percent(x) for x in (0.4, None, math.nan)] == ["40.0%", "–", "–"]
    assert [share(x) for x in (0.4, None)] == ["0.400", "–"]
    assert [count(x) for x in (1234.0, None, math.nan)] == ["1,234", "–", "–"]
