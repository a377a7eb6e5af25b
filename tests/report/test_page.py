"""The page as text: its packed data, its statements, and that it loads and sends nothing."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from showwork.errors import UserError
from showwork.evaluation.predictions import JudgedEquation, Prediction, Probe, Sample
from showwork.records import Equation, Problem
from showwork.report import traces
from showwork.report.charts import accuracy_against_cost
from showwork.report.page import cost_rows, heat_map, json_text, render_page, result_entropy
from showwork.report.results import Results
from tests.report import made

ARMS = [made.ARMS[name] for name in ("base", "sft", "sft_dual", "grpo")]
HOSTILE = "</script><script>alert(1)</script><!-- \x00\x1b\u202e <img src=x onerror=alert(1)> 3*4 = 12"
PARAMS = {"seed": 0, "base": {"drills": None}, "note": "<b>bold</b>"}
SHOWN = {"inputs": {"data/clean/test.jsonl": "0123456789abcdef"}, "params": PARAMS}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """Four arms on 24 questions."""
    folder, asked = tmp_path_factory.mktemp("made"), made.problems(24)
    for arm in ARMS:
        made.write_arm(folder, arm, asked, steps=20)
    found = made.read_results(folder, ARMS, asked, **SHOWN)
    rows = found.predictions["grpo"]
    hostile = [*rows[:3], replace(rows[3], completion=HOSTILE), *rows[4:]]
    return replace(found, predictions={**found.predictions, "grpo": hostile})


@pytest.fixture(scope="module")
def page(results):
    return render_page(results)


class Elements(HTMLParser):
    """The scripts of a page by type, its content policy, and every attribute that could load something."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.policy, self.loads, self.inside = [], None, [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [value for name, value in attrs.items() if name in ("src", "srcset", "data", "xlink:href")]
        self.loads += [attrs["href"]] if "href" in attrs and not attrs["href"].startswith("#") else []
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append([attrs.get("type"), ""])

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1][1] += data

    def handle_endtag(self, tag):
        self.inside = False


def unpacked(packed):
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_nothing_is_loaded_and_no_other_script_may_run(page):
    found = Elements(page)
    assert found.loads == []
    assert "http://" not in page
    assert "https://" not in page
    assert [kind for kind, _ in found.scripts] == ["application/json", None, None]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in found.scripts[1:]]
    assert found.policy.startswith("default-src 'none'; ")
    assert "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests) + ";" in found.policy


def test_hostile_text_is_packed_and_nowhere_else(page):
    assert "onerror" not in page
    assert "alert" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    ((_, text), *_) = Elements(page).scripts
    data = json.loads(text)
    assert data["arms"] == ["base", "sft", "sft_dual", "grpo"]
    assert data["starts"] == {"sft": "base", "sft_dual": "base", "grpo": "sft"}
    assert unpacked(data["texts"])["arms"]["grpo"][3]["text"] == HOSTILE


def test_json_ends_no_script():
    text = json_text({"a": "</script><!--"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--"}


def test_the_page_has_the_numbers(results, page):
    row = results.table.set_index("arm").loc["grpo"]
    assert f"<b>{100 * row['accuracy']:.1f}%</b>" in page
    assert f"{row['gained']:.0f} gained, {row['lost']:.0f} lost" in page
    assert "<td>data/clean/test.jsonl</td><td><code>0123456789abcdef</code></td>" in page
    assert not re.search("#f[de]00[0-9a-f]{2}", page)  # stand-ins of the page's colours
    assert len(re.findall('<svg class="chart"', page)) == 8 * 3 + 1 + 1 + 1  # panels on 3 axes, cost, reward, entropy


def test_arms_without_probes_rewards_or_costs_leave_their_sections_out(results):
    kept = ("base", "sft")
    page = render_page(
        replace(
            results,
            arms={arm: results.arms[arm] for arm in kept},
            table=results.table[:2],
            costs={},
            metrics={arm: results.metrics[arm] for arm in kept},
            predictions={arm: results.predictions[arm] for arm in kept},
            plots={arm: results.plots[arm] for arm in kept},
        )
    )
    assert 'id="probes"' not in page
    assert 'id="reward"' not in page
    assert "No arm has its minutes on record." in page
    assert "base, sft has none on record" in page


def prediction(text, *, correct=True, equations=(("3*4", "12", True),), answer="12", **more):
    found = tuple(JudgedEquation(*equation) for equation in equations)
    row = Prediction("q0", "How many?", "12", text, answer, correct, 9, False, found)
    return replace(row, **more)


def probe(tokens, *, entropy=(), settled=(), detectors=None):
    return Probe(tuple(tokens), tuple(entropy), (), tuple(settled), detectors or {})


WORKED = "<reasoning>\n3*4 = 12\n</reasoning>\n<answer>12</answer>"


@pytest.mark.parametrize(
    ("row", "marks"),
    [
        (prediction(WORKED), []),
        (prediction(WORKED, equations=[("3*4", "13", False)]), ["unfaithful", "false"]),
        (prediction(WORKED.replace("3*4 = 12", "3*3 = 9"), equations=[("3*3", "9", True)]), ["unfaithful"]),
        (prediction(WORKED, equations=[]), ["unshown"]),
        (prediction("So 13.", correct=False, answer=None, equations=[]), ["format"]),
        (prediction("So 12.", correct=False, answer=None, equations=[]), ["format", "unformed"]),
        (prediction("12", truncated=True, equations=[]), ["truncated", "format", "unshown"]),
        (
            prediction(WORKED, probe=probe([], detectors={"premise_echo": True, "contradiction": False})),
            ["premise_echo"],
        ),
    ],
)
def test_marks(row, marks):
    assert traces.marks(row) == marks


def test_a_completion_is_packed_with_places_and_levels():
    text = "🙂\n3*4 = 12"  # positions count code points: the equation starts at 2
    thought = probe(["🙂", "\n3*", "4 = ", "12"], entropy=[0.0, 0.1, 0.13, 2.0], settled=[1, 2, 3, 4])
    samples = tuple(Sample("", a, a == "12", 1, False) for a in ("12", "13", "12", None))
    found = traces.completion(prediction(text, samples=samples, probe=thought), 4000)
    assert found["equations"] == [[2, 10, 1]]
    assert found["lengths"] == [1, 3, 4, 2]
    assert found["levels"] == [0, 2, 3, 40]
    assert list(found["settled"]) == [1, 2, 3, 4]
    assert found["samples"] == [["12", 2, 1], ["13", 1, 0], [None, 1, 0]]
    assert "settled" not in traces.completion(prediction(text, probe=thought), 4000, detail=1)
    assert "lengths" not in traces.completion(prediction(text, probe=thought), 4000, detail=0)
    cut = traces.completion(prediction(text, probe=thought), 6)
    assert (cut["text"], cut["more"], cut["equations"], cut["lengths"]) == ("🙂\n3*4 ", 4, [], [1, 3])


def test_entropy_is_that_of_the_results():
    tokens = ["3*4 =", " 12", "\n<answer>", "12", "</answer>"]
    thought = probe(tokens, entropy=[9.0, 0.5, 9.0, 0.25, 9.0])
    assert result_entropy(prediction("".join(tokens)), thought) == 0.375
    assert result_entropy(prediction("none"), probe(["none"], entropy=[1.0])) is None


def test_texts_are_cut_until_they_fit(monkeypatch):
    asked = [Problem("q0", "How many?", "3*4 = 12", "12", (Equation("3*4", "12"),))]
    noise = "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(5000))
    astray = probe(["other"], entropy=[0.0], settled=[0])
    rows = {"base": [prediction(noise)], "sft": [prediction("12", probe=astray)]}
    packed, left_out = traces.block(asked, rows)
    assert left_out == {"limit": 4000, "detail": 2, "cut": 1, "unaligned": 1}
    assert unpacked(packed)["arms"]["base"][0]["more"] == 1000
    assert unpacked(packed)["questions"][0]["operations"] == "*"
    with pytest.raises(UserError, match=r"predictions/sft\.jsonl has other questions than data/clean/test\.jsonl"):
        traces.block(asked, rows | {"sft": [prediction("12", id="q1")]})
    monkeypatch.setattr(traces, "BLOCK_LIMIT", 3000)
    packed, left_out = traces.block(asked, rows)
    assert (left_out["limit"], left_out["detail"]) == (500, 0)
    assert len(packed) <= 3000


def test_cost_counts_what_an_arm_started_from():
    table = pd.DataFrame(
        [
            {"arm": "base", "start": None, "train_tokens": 300.0, "sampled_tokens": None},
            {"arm": "sft", "start": "base", "train_tokens": 200.0, "sampled_tokens": None},
            {"arm": "grpo", "start": "sft", "train_tokens": 40.0, "sampled_tokens": 60.0},
        ]
    ).assign(accuracy=[0.0, 0.5, 0.6], accuracy_low=0.1, accuracy_high=0.7)
    rows = cost_rows(table)
    assert [row["tokens"] for row in rows] == [300, 500, 600]
    assert [(row["from_tokens"], row["from_accuracy"]) for row in rows] == [(300, 0.0), (300, 0.0), (500, 0.5)]
    assert "grpo 60.0%" in accuracy_against_cost(rows)


def test_heat_map_shades_run_from_0_to_9():
    metrics = {
        "base": {"n_steps_1": 5, "accuracy_steps_1": 0.0, "n_steps_2": 4, "accuracy_steps_2": 1.0},
        "sft": {"n_steps_1": 5, "accuracy_steps_1": 0.55},
    }
    found = heat_map(metrics, "steps")
    assert found["columns"] == [{"name": "1", "n": 5}, {"name": "2", "n": 4}]
    assert [[cell["shade"] for cell in row["cells"]] for row in found["rows"]] == [[0, 9], [5, None]]
    assert found["rows"][1]["cells"][1]["text"] == "–"
