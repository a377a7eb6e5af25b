"""Cleans the problems: data/raw → data/clean/{train,val,test,shifted,rejected}.jsonl, results/metrics/clean.json."""

from pathlib import Path

import _path  # noqa: F401
from showwork import config, stage
from showwork.errors import UserError
from showwork.files import read_json, write_json, write_jsonl
from showwork.problems.cleaning import clean_lines, gold_rejects, reject_leaks
from showwork.problems.splits import find_leaks, split_validation
from showwork.problems.variants import plan_mark, question_mark

RAW, CLEAN = Path("data/raw"), Path("data/clean")
# The validation rows do not depend on the run's seed, so that arms of several seeds share the same problems.
SPLIT_SEED = 0


def main() -> None:
    clean, provenance = config.load().clean, read_json(RAW / "provenance.json")
    parts = {name: RAW / "shifted" / f"{name}.jsonl" for name in provenance["shifted"]}
    results = {}
    for split, path in ({name: RAW / f"{name}.jsonl" for name in ("train", "test")} | parts).items():
        with path.open("rb") as lines:
            results[split] = clean_lines(lines, split=split, annotation_style=clean.annotation_style)
    shifted = [problem for name in parts for problem in results[name].problems]
    leaks = find_leaks(results["train"].problems, [*results["test"].problems, *shifted])
    if clean.drop_leaks:
        results["train"] = reject_leaks(results["train"], leaks.details(), split="train")
    accepted = [problem for result in results.values() for problem in result.problems]
    refused = gold_rejects(accepted)
    if refused:
        rows = {identifier: row for result in results.values() for identifier, row in result.rows.items()}
        some = ", ".join(f"{identifier} (row {rows[identifier]})" for identifier in refused[:20])
        raise UserError(f"the scorer refuses the gold solution of {len(refused)} rows: {some}")
    train, val = split_validation(results["train"].problems, rows=clean.validation_rows, seed=SPLIT_SEED)
    written = {"train": train, "val": val, "test": results["test"].problems, "shifted": shifted}
    for name, problems in written.items():
        write_jsonl(CLEAN / f"{name}.jsonl", (problem.to_json() for problem in problems))
    # Hashes that no new problem may have: the training stages never read a test question.
    unseen = [*results["test"].problems, *shifted]
    write_json(
        CLEAN / "guard.json", sorted({mark(problem) for problem in unseen for mark in (question_mark, plan_mark)})
    )
    rejected = [row for result in results.values() for row in result.rejected]
    write_jsonl(CLEAN / "rejected.jsonl", rejected)

    counts = {
        split: {
            "read": result.read,
            "accepted": len(result.problems),
            "rejected": len(result.rejected),
            "reasons": result.reasons(),
            "equations": result.equations,
            "equations_rounded": result.equations_rounded,
        }
        for split, result in results.items()
    }
    metrics = {
        "rows": {name: len(problems) for name, problems in written.items()},
        "train": counts.pop("train"),
        "test": counts.pop("test"),
        "shifted": counts,
    }
    metrics["leaks"] = {"exact": len(leaks.exact), "near": len(leaks.near), "dropped": clean.drop_leaks}
    metrics["gold_accept_rate"] = 1.0 - len(refused) / len(accepted)
    metrics["provenance"] = provenance
    write_json(Path("results/metrics/clean.json"), metrics)


if __name__ == "__main__":
    stage.run("clean", main)
