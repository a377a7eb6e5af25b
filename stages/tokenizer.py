"""Trains the tokenizer, or takes that of published weights: data/clean → models/tokenizer."""

from pathlib import Path

import _path  # noqa: F401
from showwork import config, stage, tokenizer
from showwork.errors import UserError
from showwork.files import read_jsonl
from showwork.models import published, weights
from showwork.problems.styles import STYLES, render
from showwork.records import Problem

CLEAN, OUT = Path("data/clean"), Path("models/tokenizer")


def texts(split: str) -> list[str]:
    problems = [Problem.from_json(row) for row in read_jsonl(CLEAN / f"{split}.jsonl")]
    return [text for p in problems for text in (p.question, *(render(p, style) for style in STYLES))]


def main() -> None:
    params = config.load()
    if params.base.weights:
        words = published.write_tokenizer(weights.fetch(params.base.weights, tokenizer.FILES), OUT)
    else:
        model = tokenizer.train(texts("train"), vocabulary=params.tokenizer.vocabulary)
        words = tokenizer.Tokenizer(model)
        tokenizer.save(model, OUT)
    lossy = tokenizer.find_lossy(words, texts("train") + texts("val"))
    if lossy:
        raise UserError(f"{len(lossy)} texts do not survive encode and decode, the first: {lossy[0]!r}")


if __name__ == "__main__":
    stage.run("tokenizer", main)
