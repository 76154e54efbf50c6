"""Importing: load a recipe or a study by its address."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bygones.core.digest import digest
from bygones.core.errors import DesignError, RecipeError

_STUDY_MODULE = "bygones_study_"  # what a file is called once it is imported by its path


def load_object(source: str) -> Any:
    """The object at `package.module:name` or `path/to/file.py:name`."""
    place, _, name = source.rpartition(":")
    if not place or not name:
        raise DesignError(
            f"'{source}' is not an address; expected package.module:function or file.py:function."
        )
    module = import_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not hasattr(module, name):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise DesignError(f"{place} has no '{name}'. It has: {', '.join(public) or 'nothing'}.")
    return getattr(module, name)


def address_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    if module is None or not hasattr(module, name):
        raise DesignError(
            f"a recipe must be a function at the top level of a module or file, so that workers can "
            f"find it; got {function!r}. For variants, use Recipe.of(function, name=value)."
        )
    file = getattr(module, "__file__", None)
    if file and (module.__name__ == "__main__" or module.__name__.startswith(_STUDY_MODULE)):
        return f"{Path(file).resolve()}:{name}"
    return f"{module.__name__}:{name}"


def _load_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DesignError(f"cannot import '{name}': {error}.") from error


def imported_files() -> list[Path]:
    """The files that were imported by their path in this process."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_STUDY_MODULE)]
    return [Path(str(module.__file__)) for module in modules]


def import_file(path: Path) -> Any:
    """Imports a file by its path, once; the file's folder is importable while it loads."""
    path = path.resolve()
    main = sys.modules.get("__main__")
    if main is not None and Path(getattr(main, "__file__", None) or "").resolve() == path:
        return main
    name = f"{_STUDY_MODULE}{digest(str(path))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise DesignError(f"there is no file '{path}'.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(
            f"{path.name} raised {type(error).__name__} on import: {error}."
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
