"""The page in a real headless Chromium: 1,319 questions and 7 arms, hostile text among them."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from showwork.evaluation.predictions import Prediction
from showwork.files import read_jsonl
from showwork.report.page import render_page
from tests.report import made

pytestmark = pytest.mark.slow

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no chromium and chromedriver on the path", allow_module_level=True)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
HOSTILE = {
    0: "<script>window.harmed = 1</script></script><img src=x onerror='window.harmed = 1'>",
    1: "a\x00b\x1b[31mc\u202edesrever\u202c\u2066\u2028end <!-- <answer>12</answer>",
    2: "word " * 20_000,
    3: "<reasoning>\n3*4 = 12, 5+5 = 11\n</reasoning>\n<answer>12</answer>",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    asked = [replace(problem, id=f"test-{row:05d}") for row, problem in enumerate(made.problems(1319), start=1)]
    for arm in made.ARMS.values():
        made.write_arm(folder, arm, asked)
    shown = {"inputs": {"data/clean/test.jsonl": "0" * 32}, "params": {"base": {"drills": None}}}
    results = made.read_results(folder, made.ARMS.values(), asked, **shown)
    rows = list(results.predictions["cast"])
    for i, text in HOSTILE.items():
        rows[i] = spoil(rows[i], text)
    asked[0] = replace(asked[0], question="<script>window.harmed = 1</script> \u202eHow many?")
    text = render_page(replace(results, predictions={**results.predictions, "cast": rows}))
    path = folder / "report.html"
    path.write_text(text, "utf-8")
    return path


def spoil(row: Prediction, text: str) -> Prediction:
    """The row with another completion and a trace of it, three characters per token."""
    tokens = tuple(text[j : j + 3] for j in range(0, len(text), 3))
    ones = (1,) * len(tokens)
    return replace(row, completion=text, probe=replace(row.probe, tokens=tokens, entropy=ones, settled=ones))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browse(chromium, page):
    """Opens the page at a hash, on a screen; afterwards checks that there is no console line and no harm."""

    def open_page(anchor: str = "", *, width: int = 1360, dark: bool = False):
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
        theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
        chromium.get("about:blank")
        chromium.get(page.as_uri() + anchor)
        wait(chromium, "return document.documentElement.dataset.ready")
        return chromium

    yield open_page
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return window.harmed") is None


def wait(driver, script: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not driver.execute_script(script):
        assert time.monotonic() < until, f"never came true: {script}"
        time.sleep(0.05)


def text_of(driver, selector: str) -> str:
    return driver.execute_script(f"return document.querySelector({selector!r}).textContent")


def fill(driver, name: str, value: str) -> None:
    driver.execute_script(
        "const field = document.querySelector(`#filters [name=${arguments[0]}]`); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def press(driver, selector: str, key: str) -> None:
    driver.execute_script(
        "document.querySelector(arguments[0]).dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], "
        "bubbles: true, cancelable: true}))",
        selector,
        key,
    )


def cards(driver) -> list[str]:
    return driver.execute_script("return [...document.querySelectorAll('.card .head b')].map(b => b.textContent)")


def shown_id(driver) -> str:
    return text_of(driver, ".trace header b")


def test_it_is_small_and_loads_nothing(page, browse):
    assert page.stat().st_size < 5_000_000
    driver = browse()
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert text_of(driver, ".count") == "1,319 of 1,319 questions"
    assert cards(driver) == list(made.ARMS)
    assert driver.execute_script("return document.querySelectorAll('.item').length") < 40  # the list draws what is seen


def test_hostile_text_is_shown_as_text(browse):
    driver = browse("#q=test-00001")
    assert HOSTILE[0] in text_of(driver, ".card:last-child .said")
    assert "<script>window.harmed = 1</script> U+202EHow many?" in text_of(driver, ".trace .question")
    assert driver.execute_script("return document.querySelectorAll('.trace img, .trace script').length") == 0
    browse("#q=test-00002")
    said = text_of(driver, ".card:last-child .said")
    assert said == "aU+0000bU+001B[31mcU+202EdesreverU+202CU+2066U+2028end <!-- <answer>12</answer>"
    browse("#q=test-00003")
    said = text_of(driver, ".card:last-child .said")
    assert said.endswith("… 96,000 more characters")
    assert len(said) < 4100
    assert driver.execute_script(SIDEWAYS) == 0


def test_equations_are_marked_and_tokens_shaded(browse):
    driver = browse("#q=test-00004")
    marked = driver.execute_script(
        "return ['holds', 'fails'].map(name => "
        "[...document.querySelectorAll(`.card:last-child .eq.${name}`)].map(e => e.textContent).join(''))"
    )
    assert marked == ["3*4 = 12", "5+5 = 11"]
    shaded = driver.execute_script("return document.querySelectorAll('.card:last-child .tok').length")
    assert shaded >= len(HOSTILE[3]) / 3
    assert driver.execute_script("return document.querySelectorAll('.card:first-child .tok').length") == 0


def test_filters_agree_with_the_predictions(browse, page):
    rows = {arm: list(read_jsonl(page.parent / "predictions" / f"{arm}.jsonl")) for arm in ("sft", "grpo")}
    gained = [g["id"] for s, g in zip(rows["sft"], rows["grpo"], strict=True) if g["correct"] and not s["correct"]]
    driver = browse()
    for name, value in {"from": "sft", "to": "grpo", "outcome": "gained"}.items():
        fill(driver, name, value)
    assert text_of(driver, ".count") == f"{len(gained):,} of 1,319 questions"
    assert shown_id(driver) == gained[0]
    assert "from=sft&to=grpo&outcome=gained" in driver.current_url
    fill(driver, "mark", "truncated")
    fill(driver, "in", "grpo")
    assert text_of(driver, ".count") == "0 of 1,319 questions: nothing matches all of these filters."  # none is right
    driver.execute_script("document.querySelector('#filters').reset()")
    wait(driver, "return document.querySelector('.count').textContent === '1,319 of 1,319 questions'")
    fill(driver, "find", rows["sft"][700]["question"].upper())
    assert text_of(driver, ".count").startswith("1 of")
    assert shown_id(driver) == rows["sft"][700]["id"]


def test_a_hash_opens_a_question_and_its_filters(browse):
    driver = browse("#" + "q=test-01000&from=base&to=sft&outcome=wrong")
    assert shown_id(driver) == "test-01000"
    assert driver.execute_script("return document.querySelector('#filters [name=outcome]').value") == "wrong"
    assert driver.execute_script("return document.querySelector('#traces').getBoundingClientRect().top") < 200
    driver.execute_script("location.hash = '#q=test-00007'")
    wait(driver, "return document.querySelector('.trace header b').textContent === 'test-00007'")
    browse("#q=" + quote("<img src=x onerror=alert(1)>"))
    assert "There is no question <img src=x onerror=alert(1)>" in text_of(driver, ".count")
    browse("#curves")
    assert shown_id(driver) == "test-00001"


def test_the_keyboard_is_enough(browse):
    driver = browse("#q=test-00005")
    for selector, key, wanted in (
        ("body", "j", "test-00006"),
        (".list", "ArrowDown", "test-00007"),
        ("body", "k", "test-00006"),
        (".list", "End", "test-01319"),
        (".list", "Home", "test-00001"),
        ("body", "k", "test-00001"),
    ):
        press(driver, selector, key)
        assert shown_id(driver) == wanted
    press(driver, "body", "/")
    assert driver.execute_script("return document.activeElement.name") == "find"
    press(driver, "[name=find]", "j")  # a letter of the search
    assert shown_id(driver) == "test-00001"
    press(driver, "[name=find]", "Escape")
    assert driver.execute_script("return document.activeElement === document.body")


def test_light_and_dark(browse):
    paper = "return getComputedStyle(document.body).backgroundColor"
    driver = browse(dark=True)
    assert driver.execute_script(paper) == "rgb(18, 20, 23)"
    driver.execute_script("document.getElementById('theme').click()")
    assert driver.execute_script(paper) == "rgb(255, 255, 255)"
    browse(dark=True)
    assert driver.execute_script(paper) == "rgb(255, 255, 255)"  # the choice is kept
    driver.execute_script("localStorage.clear()")


def test_a_narrow_screen_never_scrolls_sideways(browse):
    driver = browse("#q=test-00003", width=360)
    assert driver.execute_script(SIDEWAYS) == 0


def test_the_curves_change_their_axis_and_tell_their_values(browse):
    driver = browse()
    visible = (
        "return [...document.querySelectorAll('#curves .chart')].filter(c => c.clientWidth).map(c => c.ariaLabel)[0]"
    )
    assert driver.execute_script(visible) == "Loss by tokens sampled + trained"
    driver.execute_script("document.querySelector('input[value=minutes]').click()")
    assert driver.execute_script(visible) == "Loss by minutes"
    said = driver.execute_script(
        "const chart = [...document.querySelectorAll('#curves .chart')].find(c => c.clientWidth);"
        "chart.scrollIntoView({behavior: 'instant', block: 'center'});"
        "const box = chart.getBoundingClientRect();"
        "const at = {clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true};"
        "chart.dispatchEvent(new PointerEvent('pointermove', at));"
        "return document.getElementById('tip').textContent"
    )
    head, *lines = said.split("\n")
    assert head.endswith(" minutes")
    assert sorted(line.split(":")[0] for line in lines) == ["base", "sft", "sft_dual"]
    assert all(0.2 < float(line.split(": ")[1]) < 0.6 for line in lines)  # 0.25 + 7 exp(-9/2) is 0.33
    driver.execute_script("document.querySelector('.legend button[data-arm=\"1\"]').click()")
    lit = driver.execute_script(
        "return [...document.querySelectorAll('#curves .lit')]"
        ".map(mark => mark.getAttribute('stroke') ?? mark.getAttribute('fill'))"
    )
    assert set(lit) == {"var(--arm-1)"}
