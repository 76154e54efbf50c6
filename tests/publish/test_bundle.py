"""A bundle: what goes in comes out, and nothing that was changed goes unnoticed."""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import json
import marshal
import platform
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.study_recipes import plain, small

from bygones import Arm, Reset, Study, Treatment, Window
from bygones.cli.app import main
from bygones.core.code_digest import SCRIPTS, package_digest, source_digest
from bygones.core.digest import digest
from bygones.core.errors import BundleError, DesignError
from bygones.publish.bundle import derived, layout, verify_bundle, write_bundle
from bygones.publish.bundle import verify as verifying
from bygones.publish.bundle import write as writing
from bygones.publish.bundle.archive import files_of, open_bundle, write_zip
from bygones.publish.bundle.grade import Side, grade
from bygones.publish.bundle.own_code import own_files
from bygones.publish.bundle.verify import spread_evenly
from bygones.store import FolderStore, MemoryStore, pack, unpack
from bygones.store.ledger import read_ledger, write_ledger
from bygones.store.outcomes import Manifest, read_manifest, read_outcomes, write_manifest
from bygones.study.measure import measure
from bygones.study.rerun import answer
from bygones.zoo.regimes import digits

pytestmark = pytest.mark.xdist_group("bundle")  # what they share is made once

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FolderStore:
    folder = FolderStore(tmp_path_factory.mktemp("stores") / "store")
    measure(small(("reset",), (0, 1, 3), range(5), recipe=plain), folder)
    return folder


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> Path:
    """A bundle that no test changes."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(store, out, license="CC-BY-4.0", date="2026-01-31")
    return out


@pytest.fixture
def bundle(whole, tmp_path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def digest_of(folder: Path) -> str:
    return layout.sha256(folder / layout.LISTING)


def listed_anew(folder: Path) -> None:
    """What somebody does who changed a file and does not want it to be seen."""
    names = [name for name in files_of(folder) if name != layout.LISTING]
    digests = {name: layout.sha256(folder / name) for name in names}
    (folder / layout.LISTING).write_bytes(layout.listing(digests))


def refused(path: Path, **options) -> str:
    with pytest.raises(BundleError) as caught:
        verify_bundle(path, **options)
    return str(caught.value)


# ------------------------------------------------------------------ the way through


def test_a_bundle_verifies_as_a_folder_and_as_a_zip(whole, tmp_path):
    write_zip(whole, tmp_path / "bundle.zip")
    folder = verify_bundle(whole, digest=digest_of(whole))
    zipped = verify_bundle(tmp_path / "bundle.zip", digest=digest_of(whole))
    assert dict(folder.checks).keys() == {
        "files", "digest", "study", "outcomes", "ledgers", "effects", "texts", "code", "claims"
    }  # fmt: skip
    assert folder == zipped
    assert "equal to the bit" in dict(folder.checks)["effects"]


def test_sha256sum_agrees(whole):
    ran = subprocess.run(
        ["sha256sum", "--check", "--strict", layout.LISTING],
        cwd=whole,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == len(files_of(whole)) - 1


def test_what_is_in_it_reads_without_bygones(whole, store):
    manifest = read_manifest(store)
    study = json.loads((whole / "study.json").read_text())
    assert study["seeds"] == [0, 1, 2, 3, 4]
    assert study["horizons"] == [0, 1, 3]
    assert study["digests"] == manifest.facts.digests
    assert json.loads((whole / "contract.json").read_text())["numeric"]["threads"] == 1
    arms = [arm["name"] for arm in study["arms"]]
    for seed in study["seeds"]:
        for row, arm in enumerate(arms):
            ledger = read_ledger(whole / layout.ledger_path(seed, row, arm))
            assert (ledger.header["seed"], ledger.header["arm"], ledger.complete) == (
                seed,
                arm,
                True,
            )
            assert [entry["step"] for entry in ledger.entries] == study["steps"]
    assert (whole / "code/1/tests/helpers/study_recipes.py").read_bytes() == Path(
        sys.modules["tests.helpers.study_recipes"].__file__ or ""
    ).read_bytes()
    filled = json.loads((whole / "checklist.json").read_text())
    assert filled["counts"]["answered"] > 10
    assert filled["study"] in (whole / "checklist.md").read_text()
    crate = json.loads((whole / "ro-crate-metadata.json").read_text())
    root = next(entity for entity in crate["@graph"] if entity["@id"] == "./")
    assert root["datePublished"] == "2026-01-31"
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}


def test_no_folder_of_this_machine_is_in_it(whole):
    here = str(Path(__file__).resolve().parents[2]).encode()
    assert [n for n in files_of(whole) if here in (whole / n).read_bytes()] == []


def test_the_command_line_makes_the_same_bytes_and_checks_them(
    whole, store, tmp_path, monkeypatch, capsys
):
    def bygones(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bygones", *arguments])
        main()
        return capsys.readouterr().out

    out = tmp_path / "made" / "bundle.zip"
    options = ("--license", "CC-BY-4.0", "--date", "2026-01-31", "--no-report")
    said = bygones("bundle", str(store.folder), "--out", str(out), *options)
    assert digest_of(whole) in said
    write_zip(whole, tmp_path / "again.zip")
    assert out.read_bytes() == (tmp_path / "again.zip").read_bytes()
    checked = bygones("verify", str(out), "--digest", digest_of(whole))
    assert digest_of(whole) in checked
    effects = json.loads(bygones("report", str(store.folder), "--json"))
    assert json.loads((whole / "effects.json").read_text()) == effects
    with pytest.raises(SystemExit) as left:
        bygones("verify", str(out), "--digest", "0" * 64)
    assert left.value.code == 9
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_written_over_and_a_day_is_a_day(whole, store, tmp_path):
    with pytest.raises(DesignError, match="already"):
        write_bundle(store, whole)
    for day in ("yesterday", "", "2026-99-99"):
        with pytest.raises(DesignError, match="no day"):
            write_bundle(store, tmp_path / "b", date=day)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ every byte counts


@given(data=st.data())
@settings(max_examples=150, **SLOW)
def test_a_changed_byte_in_any_file_is_noticed(whole, data):
    path = whole / data.draw(st.sampled_from(files_of(whole)))
    kept = path.read_bytes()
    place, by = data.draw(st.integers(0, len(kept) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(kept)
    changed[place] ^= by
    try:
        path.write_bytes(changed)
        said = refused(whole)
    finally:
        path.write_bytes(kept)
    assert str(path.relative_to(whole)) in said or path.name in (layout.LISTING, layout.ABOUT)


@pytest.fixture(scope="module")
def zipped(whole, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zips") / "bundle.zip"
    write_zip(whole, path)
    return path


@given(data=st.data())
@settings(max_examples=60, **SLOW)
def test_a_changed_missing_or_further_byte_anywhere_in_a_zip_is_noticed(zipped, data):
    content = bytearray(zipped.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["change", "remove", "insert", "cut"]))
    if how == "change":
        content[place] ^= data.draw(st.integers(1, 255))
    elif how == "remove":
        del content[place]
    elif how == "insert":
        content.insert(place, data.draw(st.integers(0, 255)))
    else:
        del content[place:]
    changed = zipped.with_name("changed.zip")
    changed.write_bytes(content)
    assert str(changed) in refused(changed) or how == "change"


def test_every_byte_of_a_small_zip_counts(tmp_path):
    """Names, sizes, times, checksums, flags, offsets, comments: none can be changed unnoticed."""
    (tmp_path / "files" / "inner").mkdir(parents=True)
    (tmp_path / "files" / "a").write_text("abc")
    (tmp_path / "files" / "inner" / "b").write_text("")
    path = tmp_path / "small.zip"
    write_zip(tmp_path / "files", path)
    content = path.read_bytes()
    for place in range(len(content)):
        for by in (1 << place % 8, 255):
            changed = bytearray(content)
            changed[place] ^= by
            path.write_bytes(changed)
            with pytest.raises(BundleError), open_bundle(path):
                pass
    path.write_bytes(content)
    with open_bundle(path) as folder:
        assert files_of(folder) == ["a", "inner/b"]


# ------------------------------------------------------------------ what is refused, and where


def _missing(folder: Path) -> str:
    name = next(n for n in files_of(folder) if n.startswith("objects/"))
    (folder / name).unlink()
    return name


def _extra(folder: Path) -> str:
    (folder / "code" / "more.py").write_text("print('not listed')")
    return "code/more.py"


def _swapped(folder: Path) -> str:
    one, other = (folder / layout.ledger_path(seed, 2, "reset") for seed in (0, 1))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return layout.ledger_path(0, 2, "reset") + ": another run's ledger. Its seed is 1"


def _swapped_arms(folder: Path) -> str:
    one, other = (folder / layout.ledger_path(1, *arm) for arm in ((0, "control"), (1, "sham")))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return layout.ledger_path(1, 0, "control") + ": another run's ledger. Its arm is 'sham'"


def _reordered(folder: Path) -> str:
    path = folder / layout.ledger_path(0, 2, "reset")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    return layout.ledger_path(0, 2, "reset") + ", line 2"


def _chained_anew(folder: Path) -> str:
    """Somebody who knows the format, and writes a ledger that holds."""
    path = folder / layout.ledger_path(0, 2, "reset")
    read = read_ledger(path)
    lines = [{k: v for k, v in e.items() if k != "entry"} for e in read.entries]
    lines[1]["holds"] = {**lines[1]["holds"], "weights": "0" * 32}
    header = {k: v for k, v in read.header.items() if k != "ledger"}
    path.unlink()
    write_ledger(path, header, lines)
    return layout.ledger_path(0, 2, "reset") + ", line 3: not what the outcomes say of step 5"


def _cut_ledger(folder: Path) -> str:
    path = folder / layout.ledger_path(0, 2, "reset")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    return layout.ledger_path(0, 2, "reset") + ": cut short"


def _shortened(folder: Path) -> str:
    path = folder / layout.ledger_path(0, 2, "reset")
    read = read_ledger(path)
    lines = [{k: v for k, v in e.items() if k != "entry"} for e in read.entries[:-1]]
    path.unlink()
    write_ledger(path, {k: v for k, v in read.header.items() if k != "ledger"}, lines)
    return layout.ledger_path(0, 2, "reset") + ": 2 entries, where the outcomes have 3"


def _ledger_gone(folder: Path) -> str:
    name = layout.ledger_path(3, 1, "sham")
    (folder / name).unlink()
    return f"{name}: the ledger of seed 3, arm 'sham' is missing"


def _ledger_more(folder: Path) -> str:
    kept = folder / layout.ledger_path(3, 1, "sham")
    name = layout.ledger_path(9, 1, "sham")
    (folder / name).parent.mkdir()
    (folder / name).write_bytes(kept.read_bytes())
    return f"{name}: a ledger of no seed and arm"


def _better_effect(folder: Path) -> str:
    path = folder / "effects.json"
    said = json.loads(path.read_text())
    said["effects"][-1]["estimate"]["value"] *= 1.001
    path.write_text(json.dumps(said))
    return f"effects.json/effects/{len(said['effects']) - 1}/estimate/value"


def _digit(folder: Path) -> str:
    """A number that stays within what another numpy may round differently, but is printed otherwise."""
    path = folder / "effects.json"
    said = json.loads(path.read_text())
    floor = said["effects"][0]["floor"]
    assert floor["value"] == 0.0
    floor["value"] = floor["low"] = floor["high"] = 1e-13
    path.write_text(json.dumps(said))
    return "effects.json/effects/0, in words: says"


def _word(folder: Path) -> str:
    path = folder / "effects.json"
    path.write_bytes(path.read_bytes().replace(b"random kick", b"random kiss", 1))
    return "random kiss"


def _checklist(folder: Path) -> str:
    path = folder / "checklist.json"
    path.write_bytes(path.read_bytes().replace(b'"not recorded"', b'"answered"', 1))
    return "checklist.json: not what follows from the study"


def _readme(folder: Path) -> str:
    (folder / "README.md").write_text("Nothing to see here.")
    return "README.md: not what follows from the study"


def _many_steps(folder: Path) -> str:
    """Room for so many losses would be made before the first of them is read."""
    for name in ("manifest.json",):
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b'"end": 7', b'"end": 7000000000'))
    return "manifest.json: claims 7,000,000,000 steps of 5 seeds"


def _other_seeds(folder: Path) -> str:
    path = folder / "study.json"
    path.write_bytes(path.read_bytes().replace(b'"fork_at": 4', b'"fork_at": 3'))
    return "study.json"


def _other_contract(folder: Path) -> str:
    path = folder / "contract.json"
    path.write_bytes(path.read_bytes().replace(b'"threads": 1', b'"threads": 2'))
    return "contract.json"


def _other_digest(folder: Path) -> str:
    path = folder / "bundle.json"
    about = json.loads(path.read_text())
    about["digests"]["study"] = "0" * 64
    path.write_bytes(layout.to_json(about))
    return "bundle.json: speaks of another study"


def _stray_object(folder: Path) -> str:
    name = layout.object_path(digest("stray"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"more")
    return name


def _no_safetensors(folder: Path) -> str:
    name = next(n for n in files_of(folder) if n.startswith("objects/"))
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")
    return name


def _code_elsewhere(folder: Path) -> str:
    for name in ("manifest.json", "study.json"):
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b'"root": "code/1"', b'"root": "../else"'))
    return "study.json: its code lies elsewhere"


def _no_study(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"kind": "logits"}')
    return "do not make a study"


@pytest.mark.parametrize(
    "change",
    [
        _swapped, _swapped_arms, _reordered, _chained_anew, _cut_ledger, _shortened, _ledger_gone,
        _ledger_more, _better_effect,
        _other_seeds, _other_contract, _other_digest, _stray_object, _no_safetensors, _no_study,
        _code_elsewhere, _digit, _word, _checklist, _readme, _many_steps,
    ],
    ids=lambda change: change.__name__.strip("_"),
)  # fmt: skip
def test_a_change_is_refused_with_its_place_even_if_the_list_is_made_anew(
    bundle, change: Callable[[Path], str]
):
    published = digest_of(bundle)
    place = change(bundle)
    assert layout.LISTING in refused(bundle)
    listed_anew(bundle)
    assert place in refused(bundle)
    assert digest_of(bundle) != published


@pytest.mark.parametrize("change", [_missing, _extra], ids=["missing", "extra"])
def test_a_missing_and_a_further_file_are_named(bundle, change: Callable[[Path], str]):
    place = change(bundle)
    said = refused(bundle)
    assert said.startswith(place)
    assert layout.LISTING in said


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:2], *lines],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")],
        lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
        lambda lines: [lines[0].upper(), *lines[1:]],
        lambda lines: [lines[0].replace(b"  ", b"  ../"), *lines[1:]],
    ],
    ids=["twice", "order", "newline", "crlf", "upper", "outside"],
)
def test_a_list_that_is_written_in_another_way_is_refused(bundle, change: Callable):
    path = bundle / layout.LISTING
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert refused(bundle).startswith(layout.LISTING)


def test_links_in_a_folder_are_refused(bundle):
    target = bundle / "README.md"
    kept = bundle.parent / "elsewhere"
    kept.write_bytes(target.read_bytes())
    target.unlink()
    target.symlink_to(kept)
    assert refused(bundle).startswith("README.md: a symbolic link")


@pytest.mark.parametrize("name", ["bundle.json", "manifest-sha256.txt", "code/1/more.py"])
def test_a_link_is_refused_before_what_it_leads_to_is_read(bundle, name):
    (bundle / name).unlink(missing_ok=True)
    (bundle / name).symlink_to("/etc/hostname")
    assert refused(bundle).startswith(f"{name}: a symbolic link")


def test_what_is_no_bundle_or_of_another_format_is_told_so(bundle, tmp_path):
    assert "no bundle at" in refused(tmp_path / "nowhere")
    assert "not a bundle" in refused(tmp_path)
    (tmp_path / "text.zip").write_text("not a zip")
    assert "not a whole zip" in refused(tmp_path / "text.zip")
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_bytes(layout.to_json({**about, "bundle": 2}))
    listed_anew(bundle)
    assert "format 2; this bygones reads format 1" in refused(bundle)


def test_only_the_published_digest_tells_a_bundle_made_anew(bundle):
    published = digest_of(bundle)
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_bytes(layout.to_json({**about, "published": "2020-01-01"}))
    listed_anew(bundle)
    assert "published '2020-01-01'" in dict(verify_bundle(bundle).checks)["claims"]
    assert published in refused(bundle, digest=published)


# ------------------------------------------------------------------ archives that mean harm


def _entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, mode << 16
    return entry


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "a//b", "./a", "a/\n"]
)
def test_paths_that_lead_out_are_refused(tmp_path, name):
    path = tmp_path / "inner" / "evil.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_entry(name), "harm")
    before = set(tmp_path.rglob("*"))
    assert "is refused" in refused(path)
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/evil").exists()


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        (stat.S_IFLNK | 0o777, "a symbolic link"),
        (stat.S_IFIFO | 0o644, "no file"),
        (stat.S_IFDIR | 0o755, "no file"),
    ],
)
def test_links_in_a_zip_are_refused(tmp_path, mode, what):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(_entry("README.md", mode), "/etc/passwd")
    assert f"README.md is {what}" in refused(tmp_path / "link.zip")


def test_a_zip_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_entry("big"), b"\0" * 10**7, zipfile.ZIP_DEFLATED)
    assert "big is compressed" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_entry("a"), b"\0" * 10_000)
        for number in range(20):  # all of them are the same bytes of the archive
            twin = _entry(f"b{number}")
            twin.header_offset, twin.CRC = 0, archive.filelist[0].CRC
            twin.file_size = twin.compress_size = 10_000
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    assert "more than the archive's own" in refused(path)


def test_a_file_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(_entry("a"), "one")
        archive.writestr(_entry("b"), "two")
    content = (tmp_path / "z.zip").read_bytes()
    (tmp_path / "z.zip").write_bytes(content.replace(b"b", b"a"))
    assert "a is in it twice" in refused(tmp_path / "z.zip")


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("bundle.json", layout.MOST_TEXT),
        ("objects/00/00", layout.MOST_OBJECT),
        ("code/1/a.py", 1 << 28),
    ],
)
def test_a_file_of_holes_is_refused_by_its_size(bundle, name, most):
    """60 GB that take no room on the disk, and would take all of the memory."""
    (bundle / name).parent.mkdir(exist_ok=True)
    with (bundle / name).open("wb") as file:
        file.truncate(60 * 10**9)
    assert f"{name}: 60,000,000,000 bytes, and a file of its kind has {most:,}" in refused(bundle)


# ------------------------------------------------------------------ code that means harm


def harm(mark: Path) -> str:
    return f"open({str(mark)!r}, 'w').close()\n"


def _bytecode_with_an_unchecked_hash(folder: Path, mark: Path) -> None:
    """Python takes it without a look at the source beside it."""
    source = folder / "tests/helpers/study_recipes.py"
    code = compile(source.read_text() + harm(mark), str(source), "exec")
    flags = (1).to_bytes(4, "little")  # by hash, unchecked
    content = importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source.read_bytes())
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir()
    cached.write_bytes(content + marshal.dumps(code))


def _extension(folder: Path, mark: Path) -> None:
    (folder / f"torch{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")


HARM: dict[str, Callable[[Path, Path], object]] = {
    "Python runs a file of this name": _bytecode_with_an_unchecked_hash,
    "only Python's source": lambda f, m: (f / "more.pyc").write_bytes(b"\0\0"),
    "only Python's source may lie there": lambda f, m: (f / "a.pth").write_text(
        f"import os; {harm(m)}"
    ),
    "only Python's": _extension,
    "runs a file of this name": lambda f, m: (f / "sitecustomize.py").write_text(harm(m)),
    "a file of this name": lambda f, m: (f / "tests/conftest.py").write_text(harm(m)),
    "begins with a dot": lambda f, m: (f / ".hidden.py").write_text(harm(m)),
    "not part of the code that was run": lambda f, m: (f / "xarray.py").write_text(harm(m)),
    "no text (UTF-8)": lambda f, m: (f / "latin.py").write_bytes(b"name = '\xe9'\n"),
    "read it as utf-7": lambda f, m: (f / "seven.py").write_text("# coding: utf-7\n#+AAo-1\n"),
    "U+202E, which hides": lambda f, m: (f / "bidi.py").write_text("a = 1  # \u202e 2 = a"),
    "U+000D, which hides": lambda f, m: (f / "cr.py").write_bytes(b"# a comment\rprint(1)\n"),
}


@pytest.mark.parametrize(("why", "put"), HARM.items(), ids=list(range(len(HARM))))
def test_only_source_that_can_be_read_may_lie_under_code(bundle, tmp_path, why, put):
    mark = tmp_path / "was-run"
    put(bundle / "code/1", mark)
    listed_anew(bundle)
    assert why in refused(bundle)
    assert why in refused(bundle, rerun=1, run_code=True)
    assert not mark.exists()


def test_a_recipe_that_is_no_part_of_the_bundle_is_not_called(bundle, store):
    """`os:system` is a function of a seed, too."""
    manifest = derived.relocate(read_manifest(store))
    for function in ({"name": "os:system"}, {"name": "os:system", "code": 0}):
        design = copy.deepcopy(dict(manifest.facts.design or {}))
        design["recipe"]["function"] = function
        other = replace(manifest, facts=replace(manifest.facts, design=design))
        (bundle / "manifest.json").write_bytes(layout.to_json(other.to_dict()))
        (bundle / "study.json").write_bytes(layout.to_json(derived.study_of(other)))
        listed_anew(bundle)
        said = refused(bundle, rerun=1, run_code=True)
        assert "'os:system' does not come from where" in said or "'os:system' is not in" in said


# ------------------------------------------------------------------ running it again


def test_a_bundle_runs_again_to_the_bit_with_its_own_code(whole, tmp_path):
    write_zip(whole, tmp_path / "bundle.zip")
    found = verify_bundle(tmp_path / "bundle.zip", rerun=1, run_code=True)
    assert found.rerun is not None
    assert found.rerun.grade == "bitwise"
    assert list(found.rerun.seeds) == spread_evenly(digest_of(whole), [0, 1, 2, 3, 4], 1)
    assert "equal to the bit" in str(found.rerun)
    verify_bundle(whole, digest=digest_of(whole))


def test_no_code_is_run_unless_that_is_said(bundle, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(DesignError, match="--run-code"):
        verify_bundle(bundle, rerun=1)
    verify_bundle(bundle, run_code=True)


@pytest.mark.parametrize("what", ["own", "study"])
def test_code_or_a_design_of_something_else_is_refused(whole, store, monkeypatch, what):
    digests = read_manifest(store).facts.digests
    true = {"own": design_of(store)["recipe"]["own"], "study": digests["study"]}
    monkeypatch.setattr(verifying, "ask", lambda *_: {**true, what: "another"})
    place = {"own": "code/: this is not the code", "study": "study.json: the design"}[what]
    assert place in refused(whole, rerun=1, run_code=True)


def retouched(store: FolderStore, manifest: Manifest, change: Callable[[np.ndarray], np.ndarray]):
    """The same study with other outcomes."""
    other = MemoryStore()
    names = {}
    for name in derived.objects_of(manifest):
        arrays, meta = unpack(store.get(name))
        if "observed" in arrays:
            arrays["observed"] = change(arrays["observed"]).astype(arrays["observed"].dtype)
        names[name] = other.put(pack(arrays, meta))
    entries = [replace(entry, object=names[entry.object]) for entry in manifest.entries]
    return Side(other, replace(manifest, entries=entries))


@pytest.fixture
def rerun_here(monkeypatch) -> None:
    """A re-run happens in this process, which has torch already."""

    def ask_here(question: dict, code: Path, design: dict) -> dict:
        roots = [str(code / row["root"]) for row in design["code"]]
        return answer({**question, "design": design, "roots": roots})

    monkeypatch.setattr(verifying, "ask", ask_here)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_outcomes_that_were_made_up_are_found_by_running_it_again(bundle, store, rerun_here):
    """Everything agrees with everything else, and with a list made anew; but it is not what is trained."""
    published = digest_of(bundle)
    made_up = retouched(store, read_manifest(store), lambda seen: seen * 1.01)
    manifest = derived.relocate(made_up.manifest)
    shutil.rmtree(bundle / "objects")
    for name in derived.objects_of(manifest):
        path = bundle / layout.object_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made_up.store.get(name))
    (bundle / "manifest.json").write_bytes(layout.to_json(manifest.to_dict()))
    outcomes = read_outcomes(made_up.store, manifest)
    (bundle / "effects.json").write_bytes(derived.effects_json(outcomes))
    listed_anew(bundle)
    verify_bundle(bundle)
    assert published in refused(bundle, digest=published)
    said = refused(bundle, rerun=1, run_code=True)
    assert "arm 'control': logits at step 4 is another" in said
    assert "has to come out to the bit" in said


def test_a_bundle_from_before_intervals_were_recorded_is_verified_by_students(bundle, store):
    manifest = derived.relocate(read_manifest(store))
    assert manifest.facts.interval == "by_skewness"
    before = replace(manifest, facts=replace(manifest.facts, interval=None))
    outcomes = read_outcomes(store, before).assign_attrs(interval="paired_t")
    (bundle / "manifest.json").write_bytes(layout.to_json(before.to_dict()))
    (bundle / "study.json").write_bytes(layout.to_json(derived.study_of(before)))
    (bundle / "effects.json").write_bytes(derived.effects_json(outcomes))
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_bytes(layout.to_json({**about, "made_with": "bygones 0.0.9"}))
    listed_anew(bundle)
    assert "written by bygones 0.0.9, they say" in dict(verify_bundle(bundle).checks)["texts"]
    # By the rule that came later they would be others.
    later = replace(before, facts=replace(before.facts, interval="by_skewness"))
    (bundle / "manifest.json").write_bytes(layout.to_json(later.to_dict()))
    (bundle / "study.json").write_bytes(layout.to_json(derived.study_of(later)))
    listed_anew(bundle)
    assert "worked out from the outcomes it is" in refused(bundle)


def part_of(side: Side, seeds: list[int]) -> Side:
    """Only some seeds: what a re-run has."""
    entries = [entry for entry in side.manifest.entries if entry.seed in seeds]
    return Side(side.store, replace(side.manifest, seeds=seeds, entries=entries))


def test_three_grades_and_none(store):
    manifest = read_manifest(store)
    recorded = Side(store, manifest)
    same = part_of(recorded, [1, 3])
    assert grade(recorded, same, 1e-3, ()).grade == "bitwise"
    assert grade(recorded, same, 1e-3, ("torch",)).grade == "bitwise"

    close = part_of(retouched(store, manifest, lambda seen: seen + 1e-5 * np.arange(3)), [1, 3])
    found = grade(recorded, close, 1e-3, ("torch 1 (recorded: 2)",))
    assert found.grade == "numeric"
    assert 0 < found.largest <= 1e-3
    assert "torch 1 (recorded: 2)" in str(found)
    with pytest.raises(BundleError, match="seed 1, arm 'control': logits at step 4 is another"):
        grade(recorded, close, 1e-3, ())

    alike = part_of(retouched(store, manifest, lambda seen: 1.05 * seen), [1, 3])
    assert grade(recorded, alike, 1e-3, ("torch",)).grade == "statistical"

    rng = np.random.default_rng(0)
    far = part_of(retouched(store, manifest, lambda seen: 9 * rng.normal(size=seen.shape)), [1, 3])
    with pytest.raises(BundleError, match=r"arm 'reset': tv .* other seeds predict"):
        grade(recorded, far, 1e-3, ("torch",))
    sooner = Side(store, replace(same.manifest, steps=same.manifest.steps[:-1]))
    with pytest.raises(BundleError, match="other arms or steps"):
        grade(recorded, sooner, 1e-3, ())
    with pytest.raises(BundleError, match="there are 0 other seeds"):
        grade(part_of(recorded, [1, 3]), far, 1e-3, ("torch",))


# ------------------------------------------------------------------ the code


def test_the_files_of_a_recipe_are_those_it_imports_of_its_own(tmp_path):
    def put(name: str, text: str = "") -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    put("study.py", "import helper\nfrom pkg.part import thing\nimport numpy\n")
    put("helper.py", "def late():\n    import lazy\n")
    put("lazy.py")
    put("unused.py")
    put("pkg/__init__.py", "from . import other\n")
    put("pkg/part.py", "from .deep.leaf import x\nimport outside\n")
    put("pkg/other.py")
    put("pkg/unused.py")
    put("pkg/deep/leaf.py", "from ..cousin import y\n")
    put("pkg/cousin.py")
    put("outside.py")
    package = [
        "pkg/__init__.py",
        "pkg/cousin.py",
        "pkg/deep/leaf.py",
        "pkg/other.py",
        "pkg/part.py",
    ]
    rest = ["helper.py", "lazy.py", "outside.py", "study.py"]
    assert own_files(tmp_path, "study.py") == sorted([*package, *rest])
    assert (
        own_files(tmp_path, "pkg/part.py") == package
    )  # what lies outside is not the package's own


def with_design(store: FolderStore, folder: Path, change: Callable[[dict], None]) -> FolderStore:
    """A copy of the store whose manifest says something else of the code."""
    other = FolderStore(shutil.copytree(store.folder, folder))
    record = copy.deepcopy(read_manifest(other).to_dict())
    change(record["attributes"])
    write_manifest(other, Manifest.from_dict(record))
    return other


def design_of(store: FolderStore) -> Mapping[str, Any]:
    design = read_manifest(store).facts.design
    assert design is not None
    return design


def test_code_that_was_changed_since_is_not_included(store, tmp_path, monkeypatch):
    recorded = design_of(store)["recipe"]["own"]
    monkeypatch.setattr(writing, "ask", lambda *_: {"own": recorded})
    other = with_design(
        store, tmp_path / "s", lambda a: a["design"]["recipe"].update(own=digest("another"))
    )
    made = write_bundle(other, tmp_path / "b")
    assert "has been changed since" in made.why_no_code
    assert not (made.path / "code").exists()
    verified = verify_bundle(made.path, digest=made.digest)
    assert "not included" in dict(verified.checks)["code"]
    with pytest.raises(DesignError, match="its code is not in the bundle"):
        verify_bundle(made.path, rerun=1, run_code=True)


def test_a_store_from_before_designs_says_what_to_do(store, tmp_path):
    other = with_design(store, tmp_path / "s", lambda attributes: attributes.pop("design"))
    made = write_bundle(other, tmp_path / "b.zip")
    assert "does not say where the code is" in made.why_no_code
    verify_bundle(made.path)
    with pytest.raises(DesignError, match="cannot be trained again"):
        verify_bundle(made.path, rerun=1, run_code=True)


def test_a_scripts_files_are_included_if_they_are_what_was_run(store, tmp_path):
    (tmp_path / "script").mkdir()
    file = tmp_path / "script" / "train.py"
    file.write_text("lr = 0.1\n")
    script = {
        "path": "train.py",
        "arguments": ["--lr", "0.1"],
        "seed_env": None,
        "clock": 0,
        "files": [["train.py", source_digest(file)]],
        "versions": [["torch", "2"]],
    }
    machine = package_digest(SCRIPTS)
    parts = [script[key] for key in ("files", "versions", "arguments", "seed_env", "clock")]

    def change(attributes: dict) -> None:
        code = [{"root": str(file.parent), "home": "train.py"}]
        attributes["digests"]["recipe"] = digest([*parts, machine])
        attributes["design"] = {
            "kind": "script", "why_not": "it is a script", "script": script, "machine": machine, "code": code
        }  # fmt: skip

    other = with_design(store, tmp_path / "s", change)
    made = write_bundle(other, tmp_path / "with")
    assert made.why_no_code == ""
    said = dict(verify_bundle(made.path).checks)["code"]
    assert said == "the script's own files (1) are those that were run"
    with pytest.raises(DesignError, match="it is a script"):
        verify_bundle(made.path, rerun=1, run_code=True)
    (made.path / "code/1/train.py").write_text("lr = 0.2\n")
    listed_anew(made.path)
    assert "code/1/train.py: not the file that was run" in refused(made.path)
    file_in_it = made.path / "code/1/train.py"
    file_in_it.write_text("lr = 0.1\n")
    file_in_it.with_name("torch.py").write_text("print('not the script')")
    listed_anew(made.path)
    assert "code/1/torch.py: not part of the code that was run" in refused(made.path)

    parts[2] = ["--lr", "0.3"]
    lies = write_bundle(with_design(store, tmp_path / "l", change), tmp_path / "lies")
    assert "not made of its files' digests" in refused(lies.path)

    file.write_text("lr = 0.2\n")
    without = write_bundle(other, tmp_path / "without")
    assert "train.py has been changed" in without.why_no_code
    verify_bundle(without.path)


# ------------------------------------------------------------------ bundles of earlier versions

FORMER = {
    "bygones:Reset": "bygones.interventions.reset:Reset",
    "bygones:Logits": "bygones.probes.logits:Logits",
    "bygones.zoo.regimes.digits:recipe": "bygones.regimes.digits:recipe",
}


def with_former_addresses(attributes: dict) -> None:
    """The design as it was written before modules moved into rooms."""
    text = json.dumps(attributes["design"])
    for now, then in FORMER.items():
        text = text.replace(json.dumps(now), json.dumps(then))
    assert '"bygones.interventions.reset:Reset"' in text
    assert '"bygones.probes.logits:Logits"' in text
    attributes["design"] = json.loads(text)


@pytest.mark.long
def test_a_bundle_with_addresses_of_an_earlier_version_runs_again_to_the_bit(
    store, tmp_path, rerun_here
):
    made = write_bundle(with_design(store, tmp_path / "s", with_former_addresses), tmp_path / "b")
    assert made.why_no_code == ""
    found = verify_bundle(made.path, rerun=1, run_code=True).rerun
    assert found is not None
    assert (found.grade, found.other) == ("bitwise", ())


def test_a_regime_of_an_earlier_version_is_graded_and_said_to_be_another(tmp_path, rerun_here):
    """bygones' own code is not in a bundle, so its regimes run again as this version has them."""
    at = Treatment("moments", Reset(), Window(2, 3))
    folder = FolderStore(tmp_path / "store")
    measure(Study(digits.recipe, [Arm("reset", at)], 2, (0, 1), (0, 1), "digits"), folder)

    def earlier(attributes: dict) -> None:
        with_former_addresses(attributes)
        assert attributes["design"]["recipe"]["function"]["name"] == "bygones.regimes.digits:recipe"
        attributes["design"]["recipe"]["own"] = digest("as it was")

    def another_version(attributes: dict) -> None:
        earlier(attributes)
        attributes["contract"]["bygones"] = "0.0.9 (0123456789ab)"

    made = write_bundle(with_design(folder, tmp_path / "s", another_version), tmp_path / "b")
    found = verify_bundle(made.path, rerun=1, run_code=True).rerun
    assert found is not None
    assert found.grade == "bitwise"
    assert "bygones 0.1.0" in str(found)
    assert "code of the recipe, which comes with bygones: " in str(found)
    same = write_bundle(with_design(folder, tmp_path / "t", earlier), tmp_path / "c")
    assert "not the code that the study was run with" in refused(same.path, rerun=1, run_code=True)


def test_what_a_killed_bundle_left_is_removed_by_one_that_is_refused(tmp_path):
    """A process that is killed after its bundle is in place has still to delete its scratch folder."""
    gone = next(pid for pid in range(4_000_000, 1, -1) if not Path(f"/proc/{pid}").exists())
    left = tmp_path / f".bygones-{gone}@{platform.node().replace('@', '-')[:60]}@left"
    left.mkdir()
    (tmp_path / "out").mkdir()
    with pytest.raises(DesignError, match="something at"):
        write_bundle(FolderStore(tmp_path / "store"), tmp_path / "out")
    assert not left.exists()
