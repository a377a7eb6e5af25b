"""Digests of source files by their syntax tree, which only a change of behaviour changes.

Docstrings, comments, layout, type annotations and the messages of raised errors are left out. Equal on every Python
from 3.11 on.
"""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

_ERRORS = frozenset(("UserError", "ValueError", "TypeError", "RuntimeError", "NotImplementedError"))
_IGNORED = frozenset(("type_comment", "type_ignores", "type_params", "kind", "ctx", "simple"))


def digest(path: Path) -> str:
    """16 hexadecimal digits of a Python file's tree or any other file's bytes; "" for Python without code."""
    return _read(path.read_text("utf-8"))[0] if path.suffix == ".py" else _short(path.read_bytes())


def imports(path: Path) -> frozenset[str]:
    """The modules that a Python file imports, inside functions too; `from a import b` names a and a.b."""
    return _read(path.read_text("utf-8"))[1]


@lru_cache(maxsize=1024)
def _read(source: str) -> tuple[str, frozenset[str]]:
    """Digest of a Python source ("" without code), and the modules that it imports."""
    plain = _Plain()
    tree = plain.visit(ast.parse(source))
    return (_short(repr(_values(tree)).encode()) if tree.body else ""), frozenset(plain.imports)


class _Plain(ast.NodeTransformer):
    """Removes from a tree what does not change behaviour; `imports` collects the modules that the code imports."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self._in_class = False

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports.update(alias.name for alias in node.names)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module and not node.level:
            self.imports.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._visit_within(node, is_class=False)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._visit_within(node, is_class=True)

    def _visit_within(self, node: Any, *, is_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, is_class
        self.generic_visit(node)
        self._in_class = outside
        node.body = node.body or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """`x: int = 1` becomes `x = 1`; but in a class an annotation defines a field."""
        self.generic_visit(node)
        if self._in_class:
            return node
        return ast.Assign(targets=[node.target], value=node.value) if node.value else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Removes docstrings, those of fields too."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Removes the message of an error that ends the run."""
        name = node.exc.func.id if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) else ""
        if name in _ERRORS:
            return ast.Raise(exc=ast.Name(id=name, ctx=ast.Load()), cause=None)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


def _values(node: Any) -> Any:
    """A tree as nested tuples. Not ast.dump, whose text differs between versions of Python."""
    if isinstance(node, ast.AST):
        values = [type(node).__name__]
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in _IGNORED and value is not None and value != []:
                values += (name, _values(value))
        return values
    return [_values(item) for item in node] if isinstance(node, list) else (type(node).__name__, node)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
