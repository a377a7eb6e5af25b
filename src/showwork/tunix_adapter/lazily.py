"""Imports of single modules of Tunix, without its package's __init__, which loads all the others."""

import contextlib
import importlib.util
import sys
from collections.abc import Generator
from typing import Any

import absl.logging

# Tunix and Orbax log every checkpoint and device to standard error, between the lines of the progress bar.
absl.logging.set_verbosity(absl.logging.ERROR)


@contextlib.contextmanager
def lazily(package: str) -> Generator[None]:
    """A context in which modules of the package are imported without its __init__.

    The __init__ runs at the first access to a name that it defines. Tunix's loads agents, distillation and pandas, a
    quarter of a stage's import time.
    """
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.loader is None:
            raise ImportError(f"{package} is not installed")
        loader, module = spec.loader, importlib.util.module_from_spec(spec)

        def load(name: str) -> Any:
            del module.__getattr__
            loader.exec_module(module)
            return getattr(module, name)

        module.__getattr__ = load
        sys.modules[package] = module
    yield
