"""Verify a bundle: its bytes, its hash chains, its derived files, and by training seeds again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bygones.core.errors import BundleError, BygonesError, DesignError, LedgerError
from bygones.core.study_facts import StudyFacts
from bygones.core.values import Digest
from bygones.publish.bundle import derived, layout
from bygones.publish.bundle.archive import files_of, open_bundle
from bygones.publish.bundle.check_derived import check_effects, check_texts, list_claims
from bygones.publish.bundle.code_files import check_code
from bygones.publish.bundle.grade import Grade, Side, differing_terms, grade
from bygones.publish.bundle.objects import open_objects
from bygones.publish.bundle.rerun_process import ask
from bygones.publish.bundle.write import made_with, rerun_question
from bygones.store import AbstractStore, FolderStore, ledger
from bygones.store.ledger_diff import differing_fields
from bygones.store.outcomes import Manifest, ledger_lines, read_manifest, read_outcomes

_SLACK = 1 << 28  # bytes of losses that runs which diverged need not have stored
TOLERANCE = 1e-3  # of a probability, between machines


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
        _check_sizes(folder)
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


def _check_sizes(folder: Path) -> None:
    """Check, before anything is read, that no file is a link or larger than its kind can be."""
    for name in files_of(folder):
        layout.check_size(name, (folder / name).lstat().st_size)


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
    content = layout.read_bytes(folder, layout.LISTING)
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
    if manifest.records:
        raise BundleError(f"{layout.MANIFEST}: names records of a store, which no bundle holds.")
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
    _check_claimed_size(folder, manifest, wanted)
    outcomes = read_outcomes(objects, manifest)
    num_entries = _check_ledgers(folder, objects, manifest, listed)
    made_here = about["made_with"] == made_with()
    size = f"{len(manifest.seeds)} seeds × {len(facts.arms)} arms × {len(manifest.steps)} steps"
    return manifest, [
        ("study", f"study, contract and digests say the same everywhere ({facts.study})"),
        ("outcomes", f"{len(wanted)} objects give {size}"),
        ("ledgers", f"{num_entries:,} entries; chains hold, and agree with the outcomes' own"),
        ("effects", check_effects(folder, outcomes)),
        (
            "texts",
            check_texts(folder, about, derived.study_of(manifest), outcomes, listed, made_here),
        ),
        ("code", check_code(folder, about["code"], facts, listed)),
        ("claims", list_claims(about, listed)),
    ]


def _check_claimed_size(folder: Path, manifest: Manifest, objects: Iterable[str]) -> None:
    """Check, before room is made for them, that the objects can hold the steps that the manifest claims.

    A loss and an observation take 4 bytes or more, and a stored one belongs to at most every arm.
    """
    stored = sum((folder / name).stat().st_size for name in objects)
    claimed = 4 * len(manifest.seeds) * max(manifest.end, len(manifest.steps))
    if claimed > stored + _SLACK:
        raise BundleError(
            f"{layout.MANIFEST}: claims {manifest.end:,} steps of {len(manifest.seeds):,} seeds, more than "
            f"its objects ({stored:,} bytes) can hold."
        )


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
