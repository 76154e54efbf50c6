"""Code of a bundle: which files may lie under `code/`, and whether they are the recipe's own.

Python compiles what lies there, so nothing may lie there that runs without being read: no bytecode, no
extension module, no file that an interpreter or a test runner picks up by its name (`sitecustomize`, `.pth`,
`conftest`). What is left are texts of Python; a re-run copies these alone into an empty folder.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tokenize import detect_encoding
from typing import Any

from bygones.core.code_digest import source_digest
from bygones.core.errors import BundleError
from bygones.core.importing import current_address
from bygones.core.script_digest import script_digest
from bygones.core.study_facts import StudyFacts
from bygones.publish.bundle import layout
from bygones.publish.bundle.own_code import own_files

FOLDER = "code/"
_RUN_BY_NAME = {"sitecustomize", "usercustomize", "conftest", "__pycache__"}
_MOST = 1 << 24  # bytes of one file of code
# Controls other than tab, new line and form feed; a carriage return alone; signs that turn the line around.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


def refusal(name: str, content: bytes) -> str:
    """Return why a file may not lie under `code/`, as the end of a sentence; "" if it may.

    >>> refusal("code/1/recipe.py", b"lr = 0.1")
    ''
    >>> refusal("code/1/sitecustomize.py", b"")
    'Python runs a file of this name without being asked'
    """
    stems = {part.partition(".")[0] for part in name.split("/")}
    if stems & _RUN_BY_NAME:
        return "Python runs a file of this name without being asked"
    if "" in stems:
        return "its name, or that of a folder around it, begins with a dot"
    if layout.suffix(name) != ".py":
        return "only Python's source may lie there, in files that end in .py"
    if len(content) > _MOST:
        return f"it is larger than {_MOST:,} bytes"
    try:
        text = content.decode()
        encoding, _ = detect_encoding(io.BytesIO(content).readline)
    except (UnicodeDecodeError, SyntaxError):
        return "it is no text (UTF-8)"
    if encoding not in ("utf-8", "utf-8-sig"):
        return f"it asks Python to read it as {encoding}, so it may say another thing than what is read"
    hidden = _UNSEEN.search(text)
    return (
        f"it holds U+{ord(hidden[0]):04X}, which hides what follows from a reader" if hidden else ""
    )


def check_code_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the files of a bundle that lie under `code/`. Raises BundleError for one that may not."""
    found = sorted(name for name in names if name.startswith(FOLDER))
    for name in found:
        why = refusal(name, layout.read_bytes(folder, name))
        if why:
            raise BundleError(f"{name}: refused as code of a bundle: {why}.")
    return found


def check_code(
    folder: Path, code: Mapping[str, Any], facts: StudyFacts, names: Iterable[str]
) -> str:
    """Check the code as far as possible without running it, and return what was found.

    `code`: what bundle.json says of it; `names`: the bundle's files. A script's files have the digests that
    were recorded of them. A recipe's are those, and no others, that its own file imports.
    """
    found = check_code_files(folder, names)
    if not code["runs_from"]:
        _check_files(found, [], f"{layout.ABOUT} says that no code is included")
        return f"not included: {code['why_not']}"
    design = facts.design or {}
    if any(row["root"] != layout.code_folder(i) for i, row in enumerate(design["code"])):
        raise BundleError(f"{layout.STUDY}: its code lies elsewhere than in this bundle.")
    if design["kind"] == "script":
        return _check_script(folder, design, facts, found)
    function = design["recipe"]["function"]
    if ("code" in function) != (code["runs_from"] == "bundle"):
        raise BundleError(
            f"{layout.STUDY}: its recipe {function['name']!r:.80} does not come from where {layout.ABOUT} "
            f"says ({code['runs_from']})."
        )
    if code["runs_from"] == "bygones":
        module = current_address(str(function["name"])).partition(":")[0]
        if not module.startswith("bygones."):
            raise BundleError(
                f"{layout.STUDY}: the recipe {module!r:.80} does not come with bygones."
            )
        _check_files(found, [packaged_path(module)], f"the recipe is bygones' own {module}")
        return "included for reading; a re-run takes it from the bygones that is installed"
    home = design["code"][function["code"]]["home"]
    if home not in _files_of(str(function["name"])):
        raise BundleError(
            f"{layout.STUDY}: its recipe {function['name']!r:.80} is not in {home!r:.80}, the file that is "
            f"in the bundle."
        )
    wanted: list[str] = []
    for index, row in enumerate(design["code"]):
        place = layout.code_folder(index)
        home = layout.check_name(row["home"], layout.STUDY)
        wanted += [f"{place}/{name}" for name in own_files(folder / place, home)]
    _check_files(found, wanted, "the recipe's own file imports others")
    return "included; whether it gives these outcomes is seen by running it (--rerun, --run-code)"


def _files_of(address: str) -> tuple[str, ...]:
    """Return the files that an address like `package.module:name` or `file.py:name` may mean."""
    module = address.rpartition(":")[0]
    path = module.replace(".", "/")
    return (module,) if module.endswith(".py") else (f"{path}.py", f"{path}/__init__.py")


def packaged_path(module: str) -> str:
    """Return where in a bundle the file of a recipe lies that comes with bygones."""
    return f"{FOLDER}{module.replace('.', '/')}.py"


def _check_script(
    folder: Path, design: Mapping[str, Any], facts: StudyFacts, found: list[str]
) -> str:
    script = design["script"]
    if script_digest(script, design["machine"]) != facts.digests["recipe"]:
        raise BundleError(
            f"{layout.STUDY}: its digest of the script is not made of its files' digests."
        )
    place = layout.code_folder(0)
    wanted = {
        f"{place}/{layout.check_name(name, layout.STUDY)}": expected
        for name, expected in script["files"]
    }
    _check_files(found, list(wanted), f"{layout.STUDY} lists the script's files")
    for name, expected in wanted.items():
        if source_digest(folder / name) != expected:
            raise BundleError(f"{name}: not the file that was run.")
    return f"the script's own files ({len(wanted)}) are those that were run"


def _check_files(found: Iterable[str], wanted: Iterable[str], because: str) -> None:
    """Check that the files under `code/` are those wanted, neither more nor fewer."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if extra:
        raise BundleError(f"{extra[0]}: not part of the code that was run ({because}).")
    if missing:
        raise BundleError(f"{missing[0]}: not in the bundle ({because}).")
