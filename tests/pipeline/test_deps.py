"""dvc.yaml's deps are exactly what the stages import."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.pipeline.closure import ROOT, closure

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name: str) -> None:
    script = next(dep for dep in STAGES[name]["deps"] if dep.startswith("stages/"))
    code = {Path(dep) for dep in STAGES[name]["deps"] if dep.startswith("src/") and dep.endswith(".py")}
    wanted = closure(ROOT / script)
    assert sorted(map(str, wanted)) == sorted(map(str, code)), f"dvc.yaml: deps of {name} are not what it imports"


def test_no_stage_hangs_on_whether_it_is_watched() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    read = {name.partition(".")[0] for stage in STAGES.values() for name in stage["params"]}
    assert read == params.keys() - {"live"}


def test_the_closure_follows_imports_inside_functions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from showwork.problems import splits\n")
    assert Path("src/showwork/problems/splits.py") in closure(script)
    assert Path("src/showwork/records.py") in closure(script)
    assert Path("src/showwork/rollout.py") not in closure(script)
