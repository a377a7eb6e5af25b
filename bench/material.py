"""Material shared by all sides: one model with its tokenizer, and the same rows, prompts and questions as token ids.

Written once to .scratch/bench, as a Hugging Face checkpoint and one JSON file, so that every side reads the same.
"""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.sizes import Size

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / ".scratch" / "bench"
STOP = 1  # the tokenizer's EOS


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
    from showwork import tokenizer as tokenizers
    from showwork.problems import cleaning
    from showwork.sources import generator

    def clean(rows: Sequence[bytes], split: str) -> list[Any]:
        return cleaning.clean_lines(rows, split=split, annotation_style="readable").problems

    made = generator.generate(seed=0, train_rows=4000, test_rows=max(64, size.questions), difficulty="easy")
    train, test = (clean([json.dumps(row).encode() for row in made[split]], split) for split in ("train", "test"))
    long = clean(gsm8k.read_bytes().splitlines()[:2000], "gsm8k") if gsm8k else train

    if size.weights:
        tokenizer = _publish(folder / "model", size)
    else:
        texts = (text for p in itertools.chain(train, long) for text in (p.question, p.reasoning))
        pieces = tokenizers.train(texts, vocabulary=size.vocabulary)
        tokenizer = tokenizers.Tokenizer(pieces)
        _draw(folder, size, tokenizer, train)
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


def _publish(folder: Path, size: Size) -> Any:
    """Writes the pretrained model with its tokenizer, which is returned."""
    from showwork.models import published, saving, weights
    from showwork.models.specs import MODELS

    source = weights.fetch(size.weights, weights.WEIGHTS)
    folder.mkdir(parents=True)
    tokenizer = published.write_tokenizer(source, folder)
    with published.opened(source) as found:
        saving.convert(found, folder, spec=MODELS[size.model], vocabulary=len(tokenizer), stop_ids=(STOP,))
    return tokenizer


def _draw(folder: Path, size: Size, tokenizer: Any, problems: Sequence[Any]) -> None:
    """Writes a model with random weights, or with those after a warm start on the problems."""
    import jax

    from showwork.models import saving
    from showwork.models.specs import MODELS
    from showwork.tunix_adapter import gemma, parameters

    spec, vocabulary = MODELS[size.model], size.model_vocabulary or len(tokenizer)
    model = gemma.build_model(spec, vocabulary=vocabulary, dtype=size.dtype, weights_dtype=size.dtype)
    parameters.draw_weights(model, key=jax.random.key(0))
    if size.warm_start_steps:
        _warm_start(model, _examples(problems, tokenizer), steps=size.warm_start_steps)
    saving.save(model, folder / "model", spec=spec, stop_ids=(STOP,))


def _examples(problems: Sequence[Any], tokenizer: Any) -> list[Any]:
    from showwork.reading.answers import render_completion
    from showwork.training import data

    completions = [render_completion(problem.reasoning, problem.answer) for problem in problems]
    return data.encode_examples(problems, completions, tokenizer, system="", stop_id=STOP, max_tokens=10**6)[0]


def _sft_rows(examples: Sequence[Any], size: Size) -> list[Any]:
    from showwork.training import data

    fitting = [row for row in examples if len(row.tokens) <= size.sft_max_tokens]
    if size.sft_packed_rows:
        chosen: list[Any] = []
        for row in fitting[:100]:
            packed = data.packed_rows([*chosen, row], max_tokens=size.sft_max_tokens, seed=None)
            chosen += [row] * (len(list(packed)) <= size.sft_packed_rows)
        return chosen[: len(chosen) // size.stock_micro_rows * size.stock_micro_rows]
    if not size.sft_full:
        return fitting[: size.sft_rows]
    tokens, trained = (np.concatenate([getattr(row, name) for row in examples]) for name in ("tokens", "trained"))
    cuts = [slice(i * size.sft_max_tokens, (i + 1) * size.sft_max_tokens) for i in range(size.sft_rows)]
    return [data.Example(tokens[cut], trained[cut]) for cut in cuts]


def _asked(problem: Any, tokenizer: Any) -> dict[str, Any]:
    from showwork.prompts import render_prompt

    prompt = render_prompt(problem.question, system="")
    return {"problem": problem.to_json(), "prompt": prompt, "tokens": [tokenizer.bos_id(), *tokenizer.encode(prompt)]}


def _warm_start(model: Any, rows: Sequence[Any], *, steps: int) -> None:
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
        model, optimizer.build(rates, steps=steps), settings, loss=sft.loss_of(model, split),
        on_step=lambda *_: None, on_validation=lambda *_: None,
    )  # fmt: skip
    fitting = [row for row in rows if len(row.tokens) <= settings.max_tokens]
    trainer.train(sft.training_steps(fitting, settings, split=split, seed=0), [])
