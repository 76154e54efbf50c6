"""Numeric and RNG contracts of a ledger, a study or a bundle: read, formatted and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

from bygones.core.errors import LedgerError, StoreError
from bygones.store import is_remote, open_store
from bygones.store.ledger import read_header
from bygones.store.outcomes import read_manifest

NOT_RECORDED = "not recorded"
_BUNDLED = "contract.json"  # what a bundle keeps its two contracts in


@dataclass(frozen=True)
class Contracts:
    """The two contracts of a ledger, a stored study or a bundle. `rng` is None where it was not recorded."""

    numeric: Mapping[str, Any]
    rng: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return {"numeric": self.numeric, "rng": self.rng}


def read_contracts(place: Path | str, study: str | None = None) -> Contracts:
    """Read the contracts at a path: a ledger's file, a store's folder or URL, or a bundle's folder."""
    return _stored(place, study) if is_remote(place) else _read(Path(place), study)


def _stored(place: Path | str, study: str | None) -> Contracts:
    facts = read_manifest(open_store(place), study).facts
    return Contracts(facts.contract, facts.rng)


def _read(path: Path, study: str | None) -> Contracts:
    if path.is_file():
        header = read_header(path)
        return Contracts(header.get("contract", {}), header.get("rng"))
    if (path / _BUNDLED).is_file():
        return _bundled(path / _BUNDLED)
    if not path.is_dir():
        raise StoreError(
            f"there is nothing at '{path}'. Expected a ledger's file, or the folder of a store or a bundle."
        )
    return _stored(path, study)


def _bundled(path: Path) -> Contracts:
    try:
        said = json.loads(path.read_bytes())
        return Contracts(said["numeric"], said["random"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path}: not the contracts of a bundle ({type(error).__name__})."
        ) from None


def rows_of(terms: Contracts) -> list[tuple[str, str]]:
    """Return the rows of both contracts except the streams: name and value, in words."""
    rows = [(name, in_words(value)) for name, value in terms.numeric.items()]
    if terms.rng is None:
        return [*rows, ("random numbers", NOT_RECORDED)]
    rows.append(("random numbers", in_words(terms.rng.get("contract"))))
    rows.append(("derived from", in_words(terms.rng.get("derivation"))))
    rows.append(("parameters", in_words(terms.rng.get("dtypes"))))
    rows += [(name, in_words(value)) for name, value in terms.rng.get("environment", {}).items()]
    return rows


STREAM_COLUMNS = ("stream", "generator", "derived", "draws")


def stream_rows(rng: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a row for each random stream: name, generator, derivation, and what was seen to draw from it."""
    return [(one["name"], one["generator"], one["derived"], _draws(one)) for one in rng["streams"]]


def _draws(one: Mapping[str, Any]) -> str:
    if one["drawn"] is None:
        return "not looked at"
    return one["drawn_by"] or "yes" if one["drawn"] else "not seen to"


def in_words(value: Any) -> str:
    """
    >>> in_words(True), in_words(["float32"]), in_words(None), in_words("")
    ('yes', 'float32', 'not set', 'not set')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(in_words(item) for item in cast(Sequence[Any], value))
    return "not set" if value in (None, "") else str(value)


def differences(one: Contracts, other: Contracts) -> list[tuple[str, Any, Any]]:
    """Return the differences of two contracts, (path, here, there); observed steps do not count."""
    return [
        found for found in _differing(one.to_dict(), other.to_dict()) if found[0] not in _PLACES
    ]


_PLACES = ("rng/looked_at",)
_ABSENT = object()


def _differing(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    one, other = _by_name(one), _by_name(other)
    if _is_mapping(one) and _is_mapping(other):
        return [
            found
            for key in [*one, *(key for key in other if key not in one)]
            for found in _differing(
                one.get(key, _ABSENT), other.get(key, _ABSENT), f"{where}/{key}".lstrip("/")
            )
        ]
    if one == other and type(one) is type(other):
        return []
    here, there = (NOT_RECORDED if value is _ABSENT else value for value in (one, other))
    return [(where, here, there)]


def _by_name(value: Any) -> Any:
    """Index a list of streams by name, so that their order does not count."""
    if _is_list_of_mappings(value):
        return {str(v.get("name", place)): v for place, v in enumerate(value)}
    return value


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_list_of_mappings(value: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    items = cast(list[Any], value) if isinstance(value, list) else []
    return bool(items) and all(_is_mapping(item) for item in items)
