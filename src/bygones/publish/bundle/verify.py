"""Verify a bundle: its bytes, its hash chains, its derived files, and by training seeds again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bygones.core.code_digest import source_digest
from bygones.core.errors import BundleError, BygonesError, DesignError, LedgerError
from bygones.core.script_digest import script_digest
from bygones.core.study_facts import StudyFacts, facts_of
from bygones.core.values import Digest
from bygones.publish.bundle import derived, layout
from bygones.publish.bundle.archive import files_of, open_bundle
from bygones.publish.bundle.grade import Grade, Side, differing_terms, grade
from bygones.publish.bundle.objects import open_objects
from bygones.publish.bundle.rerun_process import ask
from bygones.publish.bundle.write import rerun_question
from bygones.store import AbstractStore, FolderStore, ledger
from bygones.store.ledger_diff import differing_fields
from bygones.store.outcomes import Manifest, ledger_lines, read_manifest, read_outcomes

TOLERANCE = 1e-3  # of a probability, between machines
_ROUNDING = 1e-6  # relative: effects worked out with another numpy or scipy


@dataclass(frozen=True)
class Verified:
    """Result of a verification: rows of what was checked, and how much. `rerun`: the grade of a re-run."""

    study: str
    digest: Digest
    checks: tuple[tuple[str, str], ...]
    rerun: Grade | None


def verify_bundle(
    path: str | Path,
    *,
    digest: Digest | None = None,
    rerun: int = 0,
    run_code: bool = False,
    tolerance: float = TOLERANCE,
) -> Verified:
    """Verify a bundle, a folder or a zip. Raises BundleError with the first place that is wrong.

    `digest`: what the bundle's digest has to be; without it, only that the bundle agrees with itself is
    checked. `rerun`: so many seeds are trained again with the code of the bundle, which needs `run_code`.
    `tolerance`: by how much a prediction may differ on a machine with another contract.
    """
    if rerun and not run_code:
        raise DesignError(
            "training seeds again runs the program that the bundle brings. Read its code/, and say "
            "--run-code if you trust it."
        )
    with open_bundle(Path(path)) as folder:
        about = _about(folder, path)
        listed = _check_listing(folder, digest)
        checks = [("files", f"{len(listed)} are listed, there, and have their SHA-256")]
        if digest is not None:
            checks.append(("digest", "the bundle is the one of this digest"))
        try:
            manifest, more = _check_content(folder, about, listed)
        except BundleError:
            raise
        except Exception as error:  # whatever a file that somebody else wrote can lead to
            raise BundleError(
                f"the bundle's files are those that are listed, but do not make a study "
                f"({type(error).__name__}: {str(error).rstrip('.')})."
            ) from error
        found = _run_again(folder, manifest, rerun, tolerance) if rerun else None
        return Verified(
            about["study"],
            layout.sha256(folder / layout.LISTING),
            (*checks, *more),
            found,
        )


# ------------------------------------------------------------------ bytes


def _about(folder: Path, path: str | Path) -> dict[str, Any]:
    """Read bundle.json. Raises BundleError for a folder that is no bundle of this format."""
    for name in (layout.ABOUT, layout.LISTING):
        if not (folder / name).is_file():
            raise BundleError(f"{path}: not a bundle, or not a whole one: there is no {name}.")
    about = layout.read_json(folder, layout.ABOUT)
    version = about.get("bundle") if isinstance(about, dict) else None
    if version != layout.FORMAT:
        raise BundleError(
            f"{layout.ABOUT}: a bundle of format {version!r}; this bygones reads format {layout.FORMAT}. "
            f"It was made with {about.get('made_with') if isinstance(about, dict) else 'something else'}."
        )
    return about


def _check_listing(folder: Path, expected: Digest | None) -> dict[str, Digest]:
    """Check that every file is listed and every listed file exists, with its digest."""
    content = (folder / layout.LISTING).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    listed = layout.read_listing(content)
    names = [name for name in files_of(folder) if name != layout.LISTING]
    missing, extra = sorted(listed.keys() - set(names)), sorted(set(names) - listed.keys())
    if missing:
        raise BundleError(
            f"{missing[0]}: listed in {layout.LISTING}, and not there{_more(missing)}."
        )
    if extra:
        raise BundleError(
            f"{extra[0]}: in the bundle, and not listed in {layout.LISTING}{_more(extra)}."
        )
    for name in names:
        if layout.sha256(folder / name) != listed[name]:
            raise BundleError(f"{name}: changed. Its SHA-256 is not the one in {layout.LISTING}.")
    if expected is not None and expected.strip().lower() != found:
        raise BundleError(
            f"the bundle's digest is {found}, and {expected} was expected. It agrees with its own list, so "
            f"it was made anew, or is another bundle."
        )
    return listed


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


# ------------------------------------------------------------------ what the bytes say


def _check_content(
    folder: Path, about: dict[str, Any], listed: dict[str, Digest]
) -> tuple[Manifest, list[tuple[str, str]]]:
    """Check all derived files by computing them again from the manifest and the objects."""
    manifest = Manifest.from_dict(layout.read_json(folder, layout.MANIFEST))
    objects = open_objects(folder)
    for name, expected in {
        layout.STUDY: derived.study_of(manifest),
        layout.CONTRACT: derived.contract_of(manifest),
    }.items():
        if layout.to_json(expected) != (folder / name).read_bytes():
            raise BundleError(f"{name}: does not say what {layout.MANIFEST} says.")
    facts = manifest.facts
    if (about["study"], about["digests"]) != (facts.study, facts.digests):
        raise BundleError(f"{layout.ABOUT}: speaks of another study than {layout.MANIFEST}.")
    wanted = {layout.object_path(digest) for digest in derived.objects_of(manifest)}
    stray = sorted({n for n in listed if n.startswith("objects/")} ^ wanted)
    if stray:
        raise BundleError(f"{stray[0]}: the manifest and the objects do not agree about it.")
    outcomes = read_outcomes(objects, manifest)
    num_entries = _check_ledgers(folder, objects, manifest, listed)
    size = f"{len(manifest.seeds)} seeds × {len(facts.arms)} arms × {len(manifest.steps)} steps"
    return manifest, [
        ("study", f"study, contract and digests say the same everywhere ({facts.study})"),
        ("outcomes", f"{len(wanted)} objects give {size}"),
        ("ledgers", f"{num_entries:,} entries; chains hold, and agree with the outcomes' own"),
        ("effects", _check_effects(folder, outcomes)),
        ("code", _check_code(folder, about, facts)),
    ]


def _check_ledgers(
    folder: Path, objects: AbstractStore, manifest: Manifest, listed: dict[str, Digest]
) -> int:
    """Check that each ledger is complete, belongs to its seed and arm, and agrees with the objects."""
    num_entries, wanted = 0, set()
    for row, arm in enumerate(manifest.facts.arms):
        for seed in manifest.seeds:
            name = layout.ledger_path(seed, row, arm.name)
            wanted.add(name)
            if name not in listed:
                raise BundleError(
                    f"{name}: the ledger of seed {seed}, arm '{arm.name}' is missing."
                )
            lines = ledger_lines(objects, manifest, seed, arm.name)
            _check_ledger(folder, name, derived.header_of(manifest, seed, arm.name), lines)
            num_entries += len(lines)
    stray = sorted({n for n in listed if n.startswith("ledgers/")} - wanted)
    if stray:
        raise BundleError(f"{stray[0]}: a ledger of no seed and arm of this study.")
    return num_entries


def _check_ledger(
    folder: Path, name: str, header: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    try:
        read = ledger.read_ledger(folder / name)
    except LedgerError as error:
        raise BundleError(str(error).replace(str(folder / name), name)) from None
    for key in sorted((read.header.keys() | header.keys()) - {"ledger"}):
        if read.header.get(key) != header.get(key):
            raise BundleError(
                f"{name}: another run's ledger. Its {key} is {read.header.get(key)!r:.80}; expected "
                f"{header.get(key)!r:.80}."
            )
    if not read.complete:
        raise BundleError(f"{name}: cut short; its last line is missing.")
    for number, (one, other) in enumerate(zip(read.entries, lines, strict=False), start=2):
        if {key: value for key, value in one.items() if key != "entry"} != other:
            names = ", ".join(differing_fields(one, other)) or "step"
            raise BundleError(
                f"{name}, line {number}: not what the outcomes say of step {other['step']} (in {names})."
            )
    if len(read.entries) != len(lines):
        raise BundleError(
            f"{name}: {len(read.entries)} entries, where the outcomes have {len(lines)}."
        )


def _check_effects(folder: Path, outcomes: Any) -> str:
    """Check the effects by computing them again from the outcomes.

    A study that records no interval is of a version that knew one only: Student's.
    """
    if facts_of(outcomes).interval is None:
        outcomes = outcomes.assign_attrs(interval="paired_t")
    if derived.effects_json(outcomes) == (folder / layout.EFFECTS).read_bytes():
        return "worked out again from the outcomes, equal to the bit"
    recorded = layout.read_json(folder, layout.EFFECTS)
    for place, one, other in _unequal(recorded, derived.effects_of(outcomes), ""):
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
        if not (numbers and math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=1e-12)):
            raise BundleError(
                f"{layout.EFFECTS}{place}: says {one!r:.60}; worked out from the outcomes it is "
                f"{other!r:.60}."
            )
    return f"worked out again from the outcomes, equal to {_ROUNDING:g} of each number"


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


def _check_code(folder: Path, about: dict[str, Any], facts: StudyFacts) -> str:
    """Check the code as far as possible without running it."""
    if not about["code"]["runs_from"]:
        return f"not included: {about['code']['why_not']}"
    design = facts.design or {}
    if any(row["root"] != layout.code_folder(i) for i, row in enumerate(design["code"])):
        raise BundleError(f"{layout.STUDY}: its code lies elsewhere than in this bundle.")
    if design["kind"] != "script":
        return (
            "included; whether it gives these outcomes is seen by running it (--rerun, --run-code)"
        )
    script = design["script"]
    if script_digest(script, design["machine"]) != facts.digests["recipe"]:
        raise BundleError(
            f"{layout.STUDY}: its digest of the script is not made of its files' digests."
        )
    for name, expected in script["files"]:
        layout.check_name(name, layout.STUDY)
        if source_digest(folder / layout.code_folder(0) / name) != expected:
            raise BundleError(f"code/1/{name}: not the file that was run.")
    return f"the script's own files ({len(script['files'])}) are those that were run"


# ------------------------------------------------------------------ training again


def _run_again(folder: Path, manifest: Manifest, count: int, tolerance: float) -> Grade:
    """Train some seeds again with the code of the bundle, and grade the result."""
    facts = manifest.facts
    design = facts.design or {"kind": "other", "why_not": "its design is not recorded"}
    if design["kind"] != "recipe":
        raise DesignError(
            f"this study cannot be trained again from its bundle: {design['why_not']}."
        )
    runs_from = layout.read_json(folder, layout.ABOUT)["code"]["runs_from"]
    if not runs_from:
        raise DesignError("this study cannot be trained again: its code is not in the bundle.")
    seeds = spread_evenly(layout.sha256(folder / layout.LISTING), manifest.seeds, count)
    with TemporaryDirectory(prefix="bygones-rerun-") as name:
        store = Path(name) / "store"
        found = ask(rerun_question(facts, seeds, store), folder, design)
        _check_design(found, facts, may_differ=runs_from == "bygones")
        again = FolderStore(store)
        now = read_manifest(again)
        then, here = facts.contract, now.facts.contract
        if then.get("bygones") == here.get("bygones"):
            _check_design(found, facts, may_differ=False)
        other = differing_terms(then, here)
        other += differing_terms(design["recipe"]["versions"], found["versions"])
        other += differing_terms(*(_own_code(recipe) for recipe in (design["recipe"], found)))
        try:
            return grade(
                Side(open_objects(folder), manifest),
                Side(again, now),
                tolerance,
                tuple(dict.fromkeys(other)),
            )
        except BygonesError as error:
            raise error if isinstance(error, BundleError) else BundleError(str(error)) from error


def spread_evenly(digest: Digest, seeds: list[int], count: int) -> list[int]:
    """Sample seeds deterministically: in the order of a hash of the bundle's digest and the seed.

    >>> spread_evenly("00ff", [0, 1, 2, 3], 2)
    [1, 3]
    """
    order = sorted(seeds, key=lambda seed: hashlib.sha256(f"{digest} {seed}".encode()).digest())
    return sorted(order[:count])


def _check_design(found: dict[str, Any], facts: StudyFacts, *, may_differ: bool) -> None:
    """Refuse another recipe or another design than was recorded.

    `may_differ`: the recipe comes with bygones, so it is another one in another version of bygones.
    """
    recorded = None if facts.design is None else facts.design["recipe"]["own"]
    if found["own"] != recorded and not may_differ:
        raise BundleError("code/: this is not the code that the study was run with.")
    if found["study"] != facts.digests["study"]:
        raise BundleError(
            f"{layout.STUDY}: the design that is written there does not have the study's digest."
        )


def _own_code(recipe: dict[str, Any]) -> dict[str, str]:
    return {"code of the recipe, which comes with bygones:": recipe["own"][:12]}
