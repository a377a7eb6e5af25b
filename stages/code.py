"""Checks params.yaml, then writes the digests of each stage's code: src, stages, rewards → code/NAME.json."""

import _path  # noqa: F401
from showwork import config, digests, stage


def main() -> None:
    digests.write(config.load())


if __name__ == "__main__":
    stage.run("code", main)
