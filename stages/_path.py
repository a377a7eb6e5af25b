"""Imported first by every stage, so that it uses the package beside this file, not an installed one.

DVC runs queued experiments in a copy of the project. An editable install would give them the workspace's code, while
dvc.lock records the copy's.
"""

import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
if (SOURCE / "showwork").is_dir():
    sys.path.insert(0, str(SOURCE))
