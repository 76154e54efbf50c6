"""Study designs as JSON: written so that a bundle can run the study again, and read back.

    {"kind": "recipe", "recipe": …, "arms": […], "probe": …, "code": [{"root": folder, "home": file}]}

A value that JSON does not have is written as an object with one key for its kind:

    {"tuple": […]}  {"list": […]}  {"map": [[key, value], …]}  {"float": "inf"}
    {"array": base64, "dtype": …, "shape": […]}      also of tensors
    {"is": {"name": address, "code": i}, "fields": {…}}      a frozen value of a class

An address is `module:name` or `file.py:name`, found from the root of code `i`; one without `code` belongs
to an installed package. What bygones publishes is written by its public name, like `bygones:Reset`; the
addresses that earlier versions wrote are read too. A study that cannot be written down so is still a
study: it says why not.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bygones.core.code_digest import SCRIPTS, code_parts, package_digest
from bygones.core.digest import as_array, digest, is_array
from bygones.core.errors import DesignError
from bygones.core.importing import current_address, load_object, public_address
from bygones.core.values import Digest, Window
from bygones.study.design import Arm, ScriptProgram, Study
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment

_MOST = 1 << 20  # bytes of an array that is written into the design
_VERSION = "version of "


def design_to_json(study: Study) -> dict[str, Any]:
    """Write the study as JSON: enough to run it again where its code lies, or why that cannot be."""
    recipe = study.recipe
    if isinstance(recipe, ScriptProgram):
        return _script_to_json(recipe)
    if not isinstance(recipe, Recipe):
        return {"kind": "other", "why_not": "its runs are built by another program than a recipe"}
    writer = _Writer()
    try:
        parts = code_parts(recipe.load())
        own, versions = split_versions(parts)
        return {
            "kind": "recipe",
            "recipe": {
                "function": writer.address(recipe.source),
                "settings": writer.write(dict(recipe.settings)),
                "own": own,
                "versions": versions,
            },
            "arms": [
                [
                    arm.name,
                    [_treatment(writer, one) for one in arm.treatments],
                    *([arm.opposite_of] if arm.opposite_of else []),
                ]
                for arm in study.arms
            ],
            "fork_at": study.fork_at,
            "horizons": list(study.horizons),
            "name": study.name,
            "probe": writer.write(study.probe),
            "family": writer.write(study.family),
            "margins": [list(margin) for margin in study.margins],
            **_repeats(study),
            "code": writer.code,
        }
    except DesignError as error:
        return {"kind": "other", "why_not": str(error).rstrip(".")}


def split_versions(parts: Mapping[str, str]) -> tuple[Digest, dict[str, str]]:
    """Split code parts into the digest of the recipe's own source, and the versions of packages it uses."""
    own = {name: text for name, text in parts.items() if not name.startswith(_VERSION)}
    versions = {
        name.removeprefix(_VERSION): text
        for name, text in parts.items()
        if name.startswith(_VERSION)
    }
    return digest(own), versions


def study_from_json(written: Mapping[str, Any], roots: list[Path], seeds: list[int]) -> Study:
    """Read a study back. `roots`: the folders where its code lies now. Imports that code."""
    reader = _Reader(roots)
    function, settings = written["recipe"]["function"], reader.read(written["recipe"]["settings"])
    arms = [
        Arm(
            name,
            [Treatment(t[0], reader.read(t[1]), Window(*t[2]), t[3]) for t in treatments],
            opposite_of="".join(opposite_of),
        )
        for name, treatments, *opposite_of in written["arms"]
    ]
    return Study(
        recipe=Recipe.of(reader.source(function), **settings),
        arms=arms,
        fork_at=written["fork_at"],
        horizons=written["horizons"],
        seeds=seeds,
        name=written["name"],
        probe=reader.read(written["probe"]),
        family=reader.read(written["family"]),
        margins=[(metric, margin) for metric, margin in written["margins"]],
        siblings=written.get("siblings", 1),
        later_forks=written.get("later_forks", ()),
    )


def _repeats(study: Study) -> dict[str, Any]:
    """Write how arms are repeated within a seed, where they are."""
    if len(study.repeats) == 1:
        return {}
    return {"siblings": study.siblings, "later_forks": list(study.later_forks)}


def _script_to_json(script: ScriptProgram) -> dict[str, Any]:
    """Write what the script's digest is made of: it can be checked, while the script cannot be run again."""
    path = Path(script.path).resolve()
    return {
        "kind": "script",
        "why_not": "a script is run with what lies around it, and that is not in a bundle",
        "script": {name: _tuples_to_lists(value) for name, value in script.parts().items()},
        "machine": package_digest(SCRIPTS),
        "code": [{"root": str(path.parent), "home": path.name}],
    }


def _treatment(writer: _Writer, one: Treatment) -> list[Any]:
    window = [one.window.start, one.window.stop]
    return [one.source, writer.write(one.intervention), window, one.leaves]


class _Writer:
    """Writes values as JSON, and collects the files of the code that they need in `code`."""

    def __init__(self) -> None:
        self.code: list[dict[str, str]] = []

    def write(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | str():
                return value
            case float():
                return value if math.isfinite(value) else {"float": repr(value)}
            case tuple():
                return {"tuple": [self.write(item) for item in cast(Sequence[Any], value)]}
            case list():
                return {"list": [self.write(item) for item in cast(Sequence[Any], value)]}
            case Mapping():
                pairs = cast(Mapping[Any, Any], value).items()
                return {"map": [[self.write(k), self.write(v)] for k, v in pairs]}
            case np.generic() | np.ndarray() | torch.Tensor():
                return _array(value)
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = [f.name for f in dataclasses.fields(value) if f.init]
                return {
                    "is": self.address(public_address(type(value))),
                    "fields": {name: self.write(getattr(value, name)) for name in fields},
                }
            case _:
                raise DesignError(f"its design holds a {type(value).__name__}, {value!r:.60}")

    def address(self, source: str) -> dict[str, Any]:
        """Write an address without the folders of this machine."""
        place, _, name = source.rpartition(":")
        if place.endswith(".py"):
            path = Path(place).resolve()
            return {"name": f"{path.name}:{name}", "code": self._code_index(path.parent, path.name)}
        load_object(source)
        file = getattr(sys.modules[place], "__file__", None) or ""
        if not file or "site-packages" in file or place.partition(".")[0] == "bygones":
            return {"name": source}
        path = Path(file).resolve()
        depth = place.count(".") + (path.name == "__init__.py")
        root = path.parents[depth]
        return {"name": source, "code": self._code_index(root, path.relative_to(root).as_posix())}

    def _code_index(self, root: Path, home: str) -> int:
        row = {"root": str(root), "home": home}
        if row not in self.code:
            self.code.append(row)
        return self.code.index(row)


class _Reader:
    """Reads values from JSON; classes come from the code of the bundle, or from installed packages."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "tuple": lambda v: tuple(self.read(item) for item in v["tuple"]),
            "list": lambda v: [self.read(item) for item in v["list"]],
            "map": lambda v: {self.read(k): self.read(item) for k, item in v["map"]},
            "float": lambda v: float(v["float"]),
            "array": _array_of,
            "is": self._instance,
        }

    def read(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = next((kind for kind in self._kinds if kind in value), None)
        if kind is None:
            raise DesignError(f"the design holds something that is no value: {value!r:.80}.")
        return self._kinds[kind](value)

    def source(self, address: Mapping[str, Any]) -> str:
        name = current_address(str(address["name"]))
        in_file = name.rpartition(":")[0].endswith(".py")
        return f"{self._roots[address['code']] / name}" if in_file else name

    def _instance(self, value: Mapping[str, Any]) -> Any:
        kind = load_object(self.source(value["is"]))
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise DesignError(f"{value['is']['name']} is no class of frozen values.")
        return kind(**{name: self.read(item) for name, item in value["fields"].items()})


def _array(value: Any) -> dict[str, Any]:
    array = np.asarray(as_array(value) if is_array(value) else value)
    shape, dtype = tuple(value.shape), value.dtype
    widened = not isinstance(value, np.generic) and shape != array.shape
    if widened or array.dtype.hasobject or array.nbytes > _MOST:
        raise DesignError(
            f"its design holds an array that cannot be written down: {shape} of {dtype}"
        )
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    written = {"array": content, "dtype": array.dtype.str, "shape": list(array.shape)}
    return {**written, "tensor": True} if isinstance(value, torch.Tensor) else written


def _array_of(value: Mapping[str, Any]) -> Any:
    flat = np.frombuffer(base64.b64decode(value["array"]), dtype=np.dtype(value["dtype"]))
    array = flat.reshape(value["shape"]).copy()
    if not value.get("tensor"):
        return array
    # torch names no type for the argument.
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def _tuples_to_lists(value: Any) -> Any:
    """Replace tuples by lists, at every depth, as JSON does."""
    if not isinstance(value, list | tuple):
        return value
    return [_tuples_to_lists(item) for item in cast(Sequence[Any], value)]
