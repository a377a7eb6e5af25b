"""TRL's environment: created once in .scratch, so that it never touches the project's own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# With the packages that convert the tokenizer's SentencePiece file for transformers.
PACKAGES = ("torch==2.13.0", "trl", "peft", "sentencepiece==0.2.3", "protobuf")


def python(folder: Path, say: Callable[[str], None]) -> Path:
    """The interpreter with the newest TRL at the time of the first call. Raises CalledProcessError if pip fails."""
    interpreter, marker = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(PACKAGES)
    if not marker.exists() or marker.read_text() != wanted:
        say(f"installing {', '.join(PACKAGES)} in {folder}, once")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        marker.write_text(wanted)
    return interpreter
