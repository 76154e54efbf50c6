"""Importing objects by address: `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from bygones.core.digest import digest
from bygones.core.errors import DesignError, RecipeError
from bygones.core.text import describe_error, show

_STUDY_MODULE = "bygones_study_"  # prefix of the module names of files imported by path

# Where modules lay when addresses were written as `bygones.interventions.reset:Reset`, and lie now.
_MOVED = {
    "bygones.interventions": "bygones.training.interventions",
    "bygones.multiplicity": "bygones.analysis.multiplicity",
    "bygones.orders": "bygones.training.orders",
    "bygones.probes": "bygones.training.probes",
    "bygones.recipe": "bygones.training.recipe",
    "bygones.regimes": "bygones.zoo.regimes",
    "bygones.treatment": "bygones.training.treatment",
    "bygones.values": "bygones.core.values",
    "bygones.worlds": "bygones.zoo.worlds",
}


def load_object(source: str) -> Any:
    """Import the object at an address.

    Raises `DesignError` if the address is malformed or leads nowhere, and `RecipeError` if a file
    raises while it is imported.

    >>> load_object("bygones.core.digest:digest").__name__
    'digest'
    """
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
    """Return the address from which a worker can import a function or class.

    Raises `DesignError` for a lambda, a nested function or a method.

    >>> address_of(address_of)
    'bygones.core.importing:address_of'
    """
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    if module is None or not hasattr(module, name):
        raise DesignError(
            f"a recipe must be a function at the top level of a module or file, so that workers can "
            f"import it; got {show(function)}. For variants, use Recipe.of(function, name=value)."
        )
    file = getattr(module, "__file__", None)
    if file and (module.__name__ == "__main__" or module.__name__.startswith(_STUDY_MODULE)):
        return f"{Path(file).resolve()}:{name}"
    return f"{module.__name__}:{name}"


def public_address(member: Any) -> str:
    """Return the address of a class or function by its public name, else as `address_of` gives it.

    >>> from bygones.core.values import Window
    >>> public_address(Window)
    'bygones:Window'
    """
    package, name = sys.modules["bygones"], getattr(member, "__qualname__", "")
    of_bygones = str(getattr(member, "__module__", "")).startswith("bygones.")
    if of_bygones and name in package.__all__ and getattr(package, name) is member:
        return f"bygones:{name}"
    return address_of(member)


def current_address(source: str) -> str:
    """Return the address at which something lies now that an earlier version of bygones wrote down.

    >>> current_address("bygones.regimes.digits:recipe"), current_address("mine.regimes:recipe")
    ('bygones.zoo.regimes.digits:recipe', 'mine.regimes:recipe')
    """
    module, colon, name = source.rpartition(":")
    for former, current in _MOVED.items():
        if module == former or module.startswith(f"{former}."):
            return f"{current}{module.removeprefix(former)}{colon}{name}"
    return source


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DesignError(
            f"cannot import '{name}': {error}. Is its package installed here?"
        ) from error
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{name} {describe_error(error, 'on import')}.") from error


def imported_files() -> list[Path]:
    """List the files that this process has imported by path."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_STUDY_MODULE)]
    return [Path(str(module.__file__)) for module in modules]


def import_file(path: Path) -> ModuleType:
    """Import a file by path, once; a second call returns the same module.

    While the file is executed its folder is on `sys.path`. Raises `DesignError` if there is no such
    file and `RecipeError` if it raises.
    """
    path = path.resolve()
    main = sys.modules.get("__main__")
    if main is not None and Path(getattr(main, "__file__", None) or "").resolve() == path:
        return main
    name = f"{_STUDY_MODULE}{digest(str(path))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise DesignError(f"there is no file '{path}'. Check the path before the colon.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # Compiled here: bytecode that a full disk cut short would be read again for ever.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise RecipeError(f"{path.name} {describe_error(error, 'on import')}.") from error
    finally:
        sys.dont_write_bytecode = writes
        with suppress(ValueError):  # the file may have changed it
            sys.path.remove(str(path.parent))
    return module
