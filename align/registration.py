"""Makes transformers' Auto classes know the encoder, without importing transformers first.

`AutoConfig` lives in a module that takes seconds to import. Whoever imports `align` need not wait
for it: the encoder's configuration is registered when it is there, at once or later. `AutoModel`
asks by a configuration: the first of ours that is made registers the encoder itself.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# A module of transformers, and ours that registers itself with it.
REGISTERS = {"transformers.models.auto.configuration_auto": "align.configuration"}


class _Waiting(importlib.abc.MetaPathFinder):
    """Follows the import of a module of `REGISTERS` by that of ours."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Python's own spec of the module, its loader made to import ours afterwards."""
        ours = self._waiting.pop(fullname, None)
        if ours is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_both(module: ModuleType) -> None:
            execute(module)
            importlib.import_module(ours)

        loader: Any = spec.loader
        loader.exec_module = execute_both
        return spec


def register() -> None:
    """Registers the encoder now where transformers' Auto classes are loaded, else once they are."""
    waiting = {}
    for theirs, ours in REGISTERS.items():
        if theirs in sys.modules:
            importlib.import_module(ours)
        else:
            waiting[theirs] = ours
    if waiting:
        sys.meta_path.insert(0, _Waiting(waiting))
