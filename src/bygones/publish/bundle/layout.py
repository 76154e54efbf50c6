"""Layout of a bundle: file names, the listing, and canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bygones.core.errors import BundleError
from bygones.core.values import Digest

FORMAT = 1

ABOUT = "bundle.json"
STUDY = "study.json"
CONTRACT = "contract.json"
MANIFEST = "manifest.json"
EFFECTS = "effects.json"
CHECKLIST = "checklist"
README = "README.md"
CRATE = "ro-crate-metadata.json"
LISTING = "manifest-sha256.txt"

MOST_TEXT = 1 << 28  # bytes of a file that is read as a text
MOST_OBJECT = 1 << 32

_LINE = re.compile(r"([0-9a-f]{64})  (\S(?:.*\S)?)")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")


def extras_of(names: Iterable[str]) -> list[str]:
    """Return those of a bundle's files that only its author knows the meaning of, like a report."""
    known = {ABOUT, STUDY, CONTRACT, MANIFEST, EFFECTS, README, CRATE, LISTING}
    known |= {f"{CHECKLIST}.json", f"{CHECKLIST}.md"}
    folders = ("objects/", "ledgers/", "code/")
    return sorted(name for name in names if name not in known and not name.startswith(folders))


def object_path(digest: Digest) -> str:
    return f"objects/{digest[:2]}/{digest[2:]}"


def ledger_path(seed: int, row: int, arm: str) -> str:
    """Return the path of an arm's ledger; the name is for people, the header identifies it."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", arm).strip("-")[:40]
    return f"ledgers/seed-{seed}/{row:02d}-{plain or 'arm'}.jsonl"


def code_folder(index: int) -> str:
    return f"code/{index + 1}"


def check_name(name: str, where: str) -> str:
    """Return the path, checked. Raises where it leaves the bundle, or not every system can write it."""
    parts = name.split("/")
    led_out = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    if led_out or "" in parts or "." in parts or _ODD.search(name):
        raise BundleError(
            f"{where}: the path {name!r} is refused. Paths in a bundle are relative, with plain names "
            f"between '/', and none is '..'."
        )
    return name


def to_json(value: Any) -> bytes:
    """Encode a value as canonical JSON: equal values give equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def check_size(name: str, size: int) -> None:
    """Raise BundleError for a file that is larger than one of its kind can be, before it is read."""
    most = MOST_OBJECT if name.startswith("objects/") else MOST_TEXT
    if size > most:
        raise BundleError(
            f"{name}: {size:,} bytes, and a file of its kind has {most:,} at most; it is not read."
        )


def read_bytes(folder: Path, name: str) -> bytes:
    """Read a file of a bundle. Raises BundleError for a link, and for more bytes than its kind can have."""
    path = folder / name
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "no file"
            raise BundleError(f"{name}: {what}; a bundle has files only.")
        check_size(name, path.lstat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{name}: cannot be read: {error.strerror}.") from None


def read_json(folder: Path, name: str) -> Any:
    content = read_bytes(folder, name)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BundleError(f"{name}: not JSON.") from None


def sha256(path: Path) -> Digest:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}.") from None


def listing(digests: Mapping[str, Digest]) -> bytes:
    """Return the listing of all files with their SHA-256, as `sha256sum` writes it."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def read_listing(content: bytes) -> dict[str, Digest]:
    """Parse a listing: digests by path. Raises for a line that `listing` would not have written."""
    digests: dict[str, Digest] = {}
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise BundleError(f"{LISTING}: not a text.") from None
    for number, line in enumerate(lines[:-1], start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise BundleError(
                f"{LISTING}, line {number}: expected a SHA-256, two blanks and a path; found {line!r:.90}."
            )
        digests[check_name(found[2], f"{LISTING}, line {number}")] = found[1]
    if listing(digests) != content:
        raise BundleError(f"{LISTING}: the paths are not in order, or one is named twice.")
    return digests


def suffix(name: str) -> str:
    return PurePosixPath(name).suffix
