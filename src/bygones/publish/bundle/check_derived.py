"""Check what a bundle derives from its outcomes: the effects, and the texts that say them.

Another version of numpy or scipy may give a number another last bit. So numbers may differ by one part in a
million; but each sentence that is printed from them has to come out the same, to the last printed digit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from bygones.analysis.effect import Effect
from bygones.analysis.estimators import Estimate
from bygones.core.errors import BundleError
from bygones.core.study_facts import facts_of
from bygones.publish.bundle import derived, layout, readme
from bygones.publish.checklist import checklist, to_markdown

_ROUNDING = 1e-6  # relative: effects worked out with another numpy or scipy


def check_effects(folder: Path, outcomes: xr.Dataset) -> str:
    """Check the effects by computing them again from the outcomes, and return how they agree.

    A study that records no interval is of a version that knew one only: Student's.
    """
    if facts_of(outcomes).interval is None:
        outcomes = outcomes.assign_attrs(interval="paired_t")
    if derived.effects_json(outcomes) == layout.read_bytes(folder, layout.EFFECTS):
        return "worked out again from the outcomes, equal to the bit"
    recorded, again = layout.read_json(folder, layout.EFFECTS), derived.effects_of(outcomes)
    for place, one, other in _unequal(recorded, again, ""):
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
        if not (numbers and math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=1e-12)):
            _refuse(place, one, other)
    for index, (one, other) in enumerate(zip(recorded["effects"], again["effects"], strict=True)):
        said, expected = (_sentence({**other, **effect}) for effect in (one, other))
        if said != expected:
            _refuse(f"/effects/{index}, in words", said[0], expected[0])
    return (
        f"worked out again from the outcomes, equal to {_ROUNDING:g} of each number, and in every printed "
        f"digit"
    )


def check_texts(
    folder: Path,
    about: Mapping[str, Any],
    study: Mapping[str, Any],
    outcomes: xr.Dataset,
    names: Iterable[str],
    made_here: bool,
) -> str:
    """Check README and checklist by writing them again; those of another version are not compared.

    `names`: the bundle's files. `made_here`: whether the bundle says that this version of bygones wrote it.
    """
    if not made_here:
        return f"README and checklist are not compared: written by {about['made_with']}, they say"
    filled = checklist(outcomes)
    for name, content in {
        f"{layout.CHECKLIST}.json": layout.to_json(filled),
        f"{layout.CHECKLIST}.md": to_markdown(filled).encode(),
        layout.README: readme.text(study, about, layout.extras_of(names)).encode(),
    }.items():
        if layout.read_bytes(folder, name) != content:
            raise BundleError(f"{name}: not what follows from the study that is in the bundle.")
    return "README and checklist written again, equal to the bit"


def list_claims(about: Mapping[str, Any], names: Iterable[str]) -> str:
    """Say what stands in the bundle on its author's word alone."""
    said = [f"{what} {about[what]!r:.60}" for what in ("license", "published", "made_with")]
    files = ", ".join([*layout.extras_of(names), layout.CRATE])
    return f"on the author's word alone: {', '.join(said)}; and not worked out again: {files}"


def _refuse(place: str, one: Any, other: Any) -> None:
    raise BundleError(
        f"{layout.EFFECTS}{place}: says {_short(one)}; worked out from the outcomes it is "
        f"{_short(other)}."
    )


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, float) else f"{value!r:.300}"


def _unequal(one: Any, other: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two JSON values differ. `other` may have more keys, as of a later version."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() <= other.keys():
        for key in one:
            yield from _unequal(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _unequal(mine, theirs, f"{place}/{index}")
    elif one != other:
        yield place, one, other


def _sentence(written: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the sentence of an effect read from JSON, and whether it is beyond its references."""
    parts: dict[str, Any] = {
        name: _estimate(value) if isinstance(value, Mapping) else value
        for name, value in written.items()
    }
    effect = Effect(**parts)
    return str(effect), effect.beyond_floor, effect.beyond_null


def _estimate(written: Mapping[str, Any]) -> Estimate:
    """Read an estimate. JSON has null for a number that is not finite."""
    known = {one.name for one in dataclasses.fields(Estimate)}
    values = {name: value for name, value in written.items() if name in known}
    ends = {name: math.nan for name in ("value", "low", "high") if values[name] is None}
    return Estimate(**{**values, **ends})
