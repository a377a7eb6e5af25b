"""README and docs/: their sizes, working links, and the same six steps as in the notebook."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize(("file", "most"), [("README.md", 170), ("dvc.yaml", 300), ("params.yaml", 170)])
def test_a_file_that_everybody_reads_is_short(file: str, most: int) -> None:
    assert len((ROOT / file).read_text("utf-8").splitlines()) <= most


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_six_steps_are_the_notebooks_cells() -> None:
    cells = json.loads((ROOT / "examples/starter.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/six-steps.md").read_text("utf-8"), re.DOTALL)
    assert [block.strip() for block in blocks[-6:]] == code[-6:]
    assert len(code) >= 6
