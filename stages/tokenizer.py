"""Trains the tokenizer: data/clean/train.jsonl → models/tokenizer."""

from pathlib import Path

from showwork import config, stage, tokenizer
from showwork.errors import UserError
from showwork.files import read_jsonl
from showwork.problems.answers import render_completion
from showwork.records import Problem

CLEAN = Path("data/clean")


def texts(split: str) -> list[str]:
    problems = [Problem.from_json(row) for row in read_jsonl(CLEAN / f"{split}.jsonl")]
    return [text for p in problems for text in (p.question, render_completion(p.reasoning, p.answer))]


def main() -> None:
    model = tokenizer.train(texts("train"), vocabulary=config.load().tokenizer.vocabulary)
    lossy = tokenizer.find_lossy(tokenizer.Tokenizer(model), texts("train") + texts("val"))
    if lossy:
        raise UserError(f"{len(lossy)} texts do not survive encode and decode, the first: {lossy[0]!r}")
    tokenizer.save(model, Path("models/tokenizer"))


if __name__ == "__main__":
    stage.run("tokenizer", main)
