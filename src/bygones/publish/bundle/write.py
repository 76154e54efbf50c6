"""Write a bundle from a store: into a temporary folder, which is then moved into place."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bygones.core.code_digest import source_digest
from bygones.core.errors import BundleError, DesignError
from bygones.core.files import remove_leftovers, scratch_beside
from bygones.core.importing import current_address
from bygones.core.study_facts import StudyFacts
from bygones.core.values import Digest
from bygones.publish.bundle import derived, layout, readme
from bygones.publish.bundle.archive import files_of, write_zip
from bygones.publish.bundle.code_files import packaged_path, refusal
from bygones.publish.bundle.crate import crate_json
from bygones.publish.bundle.objects import ReadOnly
from bygones.publish.bundle.own_code import own_files
from bygones.publish.bundle.rerun_process import ask
from bygones.publish.checklist import checklist, to_markdown
from bygones.store import FolderStore, ledger
from bygones.store.outcomes import (
    Manifest,
    check_records,
    ledger_lines,
    read_manifest,
    read_outcomes,
)

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Written:
    """A written bundle, with the digest to publish beside it. `why_no_code`: empty if code is included."""

    path: Path
    digest: Digest
    why_no_code: str


def write_bundle(
    store: FolderStore,
    out: str | Path,
    study: str | None = None,
    *,
    license: str = NOT_STATED,
    date: str | None = None,
    extras: Mapping[str, bytes] | None = None,
) -> Written:
    """Write a study of a store as a bundle: a folder, or a zip where `out` ends in `.zip`.

    `license`: an SPDX identifier. `date`: the day of publication, like 2026-01-31; without it, the day on
    which the last outcome was stored. `extras`: further files by path. Equal stores and arguments give
    equal bytes. To see whether the recipe's code is still what was run, it is imported in another process.
    """
    out = Path(out)
    if out.exists():
        remove_leftovers(out.parent)  # of one that was killed once its bundle was in place
        raise DesignError(f"there is something at '{out}' already; choose another --out.")
    manifest = read_manifest(store, study)
    check_records(store, manifest)
    published = _checked_date(date) or _last_stored(store, manifest)
    with scratch_beside(out) as beside:
        folder = beside / "bundle"
        folder.mkdir()
        code = _fill(folder, store, manifest, license, published, extras or {})
        digest = layout.sha256(folder / layout.LISTING)
        finished = folder
        if out.suffix == ".zip":
            finished = beside / "bundle.zip"
            write_zip(folder, finished)
        os.rename(finished, out)
    return Written(out, digest, code["why_not"])


def _fill(
    folder: Path,
    store: FolderStore,
    manifest: Manifest,
    license: str,
    date: str,
    extras: Mapping[str, bytes],
) -> dict[str, str]:
    """Write every file of the bundle, and return the description of the code in it."""
    objects = ReadOnly(store.get)
    moved = derived.relocate(manifest)
    study = derived.study_of(moved)
    for digest in derived.objects_of(manifest):
        _write(folder, layout.object_path(digest), objects.get(digest))
    for row, arm in enumerate(manifest.facts.arms):
        for seed in manifest.seeds:
            path = folder / layout.ledger_path(seed, row, arm.name)
            header = derived.header_of(manifest, seed, arm.name)
            ledger.write_ledger(path, header, ledger_lines(objects, manifest, seed, arm.name))
    code = _write_code(folder, manifest)
    about = {
        "bundle": layout.FORMAT,
        "study": study["study"],
        "digests": study["digests"],
        "license": license,
        "published": date,
        "made_with": made_with(),
        "code": code,
    }
    for name, value in {
        layout.ABOUT: about,
        layout.STUDY: study,
        layout.CONTRACT: derived.contract_of(manifest),
        layout.MANIFEST: moved.to_dict(),
    }.items():
        _write(folder, name, layout.to_json(value))
    outcomes = read_outcomes(objects, moved)
    _write(folder, layout.EFFECTS, derived.effects_json(outcomes))
    filled = checklist(outcomes)
    _write(folder, f"{layout.CHECKLIST}.json", layout.to_json(filled))
    _write(folder, f"{layout.CHECKLIST}.md", to_markdown(filled).encode())
    for name, content in extras.items():
        _write(folder, layout.check_name(name, "extras"), content)
    _write(folder, layout.README, readme.text(study, about, sorted(extras)).encode())
    names = [*files_of(folder), layout.CRATE, layout.LISTING]
    _write(folder, layout.CRATE, crate_json(study, names, license, date, made_with()))
    digests = {name: layout.sha256(folder / name) for name in files_of(folder)}
    _write(folder, layout.LISTING, layout.listing(digests))
    return code


def made_with() -> str:
    """Return what a bundle that is written now says of the program that wrote it."""
    return f"bygones {metadata.version('bygones')}"


def _write(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _last_stored(store: FolderStore, manifest: Manifest) -> str:
    """Return the day (UTC) on which the last of the study's outcomes was stored."""
    times = []
    for digest in derived.objects_of(manifest):
        path = store.folder / layout.object_path(digest)
        if path.exists():
            times.append(path.stat().st_mtime)
    newest = max(times, default=0.0)
    return datetime.datetime.fromtimestamp(newest, datetime.UTC).date().isoformat()


def _checked_date(date: str | None) -> str | None:
    if date is None:
        return None
    try:
        day = datetime.date.fromisoformat(date).isoformat()
    except (TypeError, ValueError):
        day = None
    if day != date:  # other spellings of a day are read too
        raise DesignError(f"{date!r} is no day. Expected one like 2026-01-31.")
    return date


# ------------------------------------------------------------------ the code


def _write_code(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Copy the recipe's own files, if they are unchanged, and return where a re-run finds the code.

    `runs_from`: the bundle, bygones, nowhere (a script, for reading), or "" where no code is included.
    """
    design = manifest.facts.design or {"kind": "unknown"}
    packaged = design["kind"] == "recipe" and not design["code"]
    why = _why_no_code(folder, manifest, design)
    place = "nowhere" if design["kind"] == "script" else "bygones" if packaged else "bundle"
    return {"runs_from": "" if why else place, "why_not": why}


def _why_no_code(folder: Path, manifest: Manifest, design: Mapping[str, Any]) -> str:
    if design["kind"] == "unknown":
        return (
            "the store does not say where the code is; the same `bygones run` into it again, which trains "
            "nothing twice, makes it say so"
        )
    if design["kind"] == "script":
        return _write_script(folder, design)
    if design["kind"] != "recipe":
        return str(design["why_not"])
    if not design["code"]:
        return _write_packaged(folder, design)
    for index, row in enumerate(design["code"]):
        root = Path(row["root"])
        if not (root / row["home"]).is_file():
            return f"{row['home']} is no longer where it was when the study was run"
        for name in own_files(root, row["home"]):
            content = (root / name).read_bytes()
            refused = refusal(f"{layout.code_folder(index)}/{name}", content)
            if refused:
                shutil.rmtree(folder / "code", ignore_errors=True)
                return f"{name} cannot be code of a bundle: {refused}"
            _write(folder, f"{layout.code_folder(index)}/{name}", content)
    why = _why_not_the_code(folder, manifest)
    if why:
        shutil.rmtree(folder / "code")
    return why


def _why_not_the_code(folder: Path, manifest: Manifest) -> str:
    """Return why the copied code is not the recipe that was run, "" if it is; the copy is imported."""
    facts = derived.relocate(manifest).facts
    design = facts.design or {}
    try:
        found = ask(rerun_question(facts, manifest.seeds), folder, design)
    except BundleError as error:
        return str(error).rstrip(".")
    if found["own"] != design["recipe"]["own"]:
        return "the recipe's code has been changed since the study was run"
    if found["study"] != facts.digests["study"]:
        return "the study cannot be made again from what was recorded of it"
    return ""


def rerun_question(
    facts: StudyFacts, seeds: list[int], store: Path | None = None
) -> dict[str, Any]:
    """Return the request to `bygones.study.rerun` that trains a study again."""
    return {
        "recipe": facts.digests["recipe"],
        "seeds": seeds,
        "store": None if store is None else str(store),
        "lanes": facts.contract.get("lanes", 1),
        "device": facts.contract["device"],
    }


def _write_packaged(folder: Path, design: Mapping[str, Any]) -> str:
    """Copy a recipe that comes with bygones, for reading; return why another package's is not copied."""
    module = current_address(str(design["recipe"]["function"]["name"])).partition(":")[0]
    source = Path(__file__).parents[3] / (module.replace(".", "/") + ".py")
    if module.startswith("bygones.") and source.is_file():
        _write(folder, packaged_path(module), source.read_bytes())
        return ""
    return f"the recipe comes with an installed package, as {module}"


def _write_script(folder: Path, design: Mapping[str, Any]) -> str:
    root = Path(design["code"][0]["root"])
    files = {name: (root / name, digest) for name, digest in design["script"]["files"]}
    for name, (path, digest) in files.items():
        if not path.is_file():
            return f"{name} is no longer where it was when the script was run"
        if source_digest(path) != digest:
            return f"{name} has been changed since the script was run"
        refused = refusal(f"{layout.code_folder(0)}/{name}", path.read_bytes())
        if refused:
            return f"{name} cannot be code of a bundle: {refused}"
    for name, (path, _) in files.items():
        _write(folder, f"{layout.code_folder(0)}/{name}", path.read_bytes())
    return ""
