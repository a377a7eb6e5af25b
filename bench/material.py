"""Material shared by all sides: one model with its tokenizer, and the same rows, prompts and questions as token ids.

Written once to .scratch/bench, as a Hugging Face checkpoint and one JSON file, so that every side reads the same.
"""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / ".scratch" / "bench"
STOP = 1  # the tokenizer's EOS


@dataclass(frozen=True)
class Size:
    """The work. Temperature, top_k, top_p, beta, epsilon and the micro-batch of 2 rows are notebooks 1 and 4's.

    sft_rows examples make one optimizer step, prompts x generations completions one GRPO step. alone questions are
    asked one at a time, `questions` in one batch. vocabulary is the tokenizer's, model_vocabulary the model's, 0 for
    the same; tokens_per_pass and logit_positions are for our side; with sft_full the rows are filled to
    sft_max_tokens; rollout is (prompts, tokens each) of a rollout without any stop.
    """

    model: str = "gemma3_tiny"
    vocabulary: int = 1024
    warm_start_steps: int = 250
    sft_rows: int = 16
    sft_max_tokens: int = 2048
    stock_micro_rows: int = 2
    prompts: int = 16
    generations: int = 8
    max_prompt_tokens: int = 160
    max_completion_tokens: int = 112
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    beta: float = 0.08
    epsilon: float = 0.2
    questions: int = 256
    alone: int = 8
    dtype: str = "float32"
    tokens_per_pass: int = 1152
    logit_positions: int = 1024
    model_vocabulary: int = 0
    sft_full: bool = False
    rollout: tuple[int, int] = (64, 512)


SIZES = {
    "full": Size(),
    # Every line of the bench in a minute or two; its ratios mean nothing.
    "toy": Size(
        model="gemma3_test",
        vocabulary=420,
        warm_start_steps=2,
        sft_rows=4,
        sft_max_tokens=512,
        prompts=2,
        generations=2,
        max_completion_tokens=8,
        questions=8,
        alone=2,
    ),
    # Random weights, for measuring a lent GPU (gpu.py).
    "gpu": Size(
        model="gemma3_1b",
        warm_start_steps=0,
        sft_rows=4,
        prompts=8,
        max_completion_tokens=256,
        dtype="bfloat16",
        tokens_per_pass=8192,
        logit_positions=512,
        model_vocabulary=262_144,
        sft_full=True,
    ),
    "gpu-toy": Size(
        model="gemma3_test",
        vocabulary=420,
        warm_start_steps=0,
        sft_rows=2,
        sft_max_tokens=128,
        prompts=2,
        generations=2,
        max_completion_tokens=8,
        dtype="bfloat16",
        model_vocabulary=512,
        sft_full=True,
        rollout=(4, 8),
        questions=8,
    ),
}


def prepare(size: Size, gsm8k: Path | None) -> Path:
    """The folder with model/ and work.json, created if it does not exist."""
    # Other code may write other checkpoints.
    sources = [*sorted((ROOT / "src").rglob("*.py")), Path(__file__), *([gsm8k] if gsm8k else [])]
    digest = hashlib.sha256(json.dumps(asdict(size)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = SCRATCH / digest.hexdigest()[:12]
    if not folder.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=SCRATCH))
        _make(made, size, gsm8k)
        made.rename(folder)
    return folder


def read(folder: Path) -> tuple[Size, dict[str, Any]]:
    work = json.loads((folder / "work.json").read_text("utf-8"))
    size = work.pop("size")
    return Size(**{**size, "rollout": tuple(size["rollout"])}), work


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer. A published shape's random weights have more pieces than it: its pieces repeat."""
    from showwork import tokenizer as tokenizers

    class Cyclic(tokenizers.Tokenizer):
        def decode(self, ids: Iterable[int]) -> str:
            return super().decode(int(i) % len(self) for i in ids)

    return Cyclic((folder / "model" / tokenizers.MODEL_FILE).read_bytes())


def _make(folder: Path, size: Size, gsm8k: Path | None) -> None:
    # Imported here, because processes that only read the settings need no JAX, or have none.
    import jax

    from showwork import tokenizer as tokenizers
    from showwork.models import saving
    from showwork.models.specs import MODELS
    from showwork.problems import cleaning
    from showwork.sources import generator
    from showwork.tunix_adapter import gemma, parameters

    def clean(rows: Sequence[bytes], split: str) -> list[Any]:
        return cleaning.clean_lines(rows, split=split, annotation_style="readable").problems

    made = generator.generate(seed=0, train_rows=4000, test_rows=max(64, size.questions), difficulty="easy")
    train, test = (clean([json.dumps(row).encode() for row in made[split]], split) for split in ("train", "test"))
    long = clean(gsm8k.read_bytes().splitlines()[:2000], "gsm8k") if gsm8k else train

    pieces = tokenizers.train(
        (text for p in itertools.chain(train, long) for text in (p.question, p.reasoning)), vocabulary=size.vocabulary
    )
    tokenizer, spec = tokenizers.Tokenizer(pieces), MODELS[size.model]
    vocabulary = size.model_vocabulary or len(tokenizer)
    model = gemma.build_model(spec, vocabulary=vocabulary, dtype=size.dtype, weights_dtype=size.dtype)
    parameters.draw_weights(model, key=jax.random.key(0))
    if size.warm_start_steps:
        _warm_start(model, _examples(train, tokenizer), folder / "state", steps=size.warm_start_steps)
    saving.save(model, folder / "model", spec=spec, stop_ids=(STOP,))
    tokenizers.save(pieces, folder / "model")

    rows = _sft_rows(_examples(long, tokenizer), size)
    work = {
        "size": asdict(size),
        "sft_source": gsm8k.name if gsm8k else "generated",
        "sft": [{"tokens": row.tokens.tolist(), "trained": row.trained.tolist()} for row in rows],
        "grpo": [_asked(problem, tokenizer) for problem in train[: size.prompts]],
        "questions": [_asked(problem, tokenizer) for problem in test[: size.questions]],
    }
    (folder / "work.json").write_text(json.dumps(work), "utf-8")


def _examples(problems: Sequence[Any], tokenizer: Any) -> list[Any]:
    from showwork.reading.answers import render_completion
    from showwork.training import data

    completions = [render_completion(problem.reasoning, problem.answer) for problem in problems]
    return data.encode_examples(problems, completions, tokenizer, system="", stop_id=STOP, max_tokens=10**6)[0]


def _sft_rows(examples: Sequence[Any], size: Size) -> list[Any]:
    from showwork.training import data

    if not size.sft_full:
        return [row for row in examples if len(row.tokens) <= size.sft_max_tokens][: size.sft_rows]
    tokens, trained = (np.concatenate([getattr(row, name) for row in examples]) for name in ("tokens", "trained"))
    cuts = [slice(i * size.sft_max_tokens, (i + 1) * size.sft_max_tokens) for i in range(size.sft_rows)]
    return [data.Example(tokens[cut], trained[cut]) for cut in cuts]


def _asked(problem: Any, tokenizer: Any) -> dict[str, Any]:
    from showwork.prompts import render_prompt

    prompt = render_prompt(problem.question, system="")
    return {"problem": problem.to_json(), "prompt": prompt, "tokens": [tokenizer.bos_id(), *tokenizer.encode(prompt)]}


def _warm_start(model: Any, rows: Sequence[Any], folder: Path, *, steps: int) -> None:
    """Trains enough for completions that end by themselves, with realistic lengths."""
    from showwork import config
    from showwork.training import optimizer, sft
    from showwork.training.passes import Split
    from showwork.tunix_adapter import supervised

    rates = config.Optimizer(
        learning_rate=2e-3, warmup_ratio=0.05, final_ratio=0.1, b1=0.9, b2=0.99, weight_decay=0.01, max_grad_norm=1.0
    )
    settings = config.Supervised(
        optimizer=rates, steps=steps, rows_per_step=8, max_tokens=160, validate_every_steps=10**9,
        checkpoint_every_steps=10**9,
    )  # fmt: skip
    split = Split(devices=1, tokens=8 * 160, logit_positions=1024)
    trainer = supervised.SupervisedTrainer(
        model, optimizer.build(rates, steps=steps), settings, loss=sft.loss_of(model, split), checkpoints=folder,
        on_step=lambda *_: None, on_validation=lambda *_: None,
    )  # fmt: skip
    trainer.is_managed_externally = True  # it would write a checkpoint at its end
    fitting = [row for row in rows if len(row.tokens) <= settings.max_tokens]
    trainer.train(sft.training_steps(fitting, settings, split=split, seed=0), [])
