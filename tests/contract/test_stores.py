"""Every store, same behaviours: what was put comes back to the bit, and nothing else ever does."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bygones.core.digest import digest
from bygones.core.errors import StoreError
from bygones.store import (
    AbstractStore,
    Damaged,
    FolderStore,
    MemoryStore,
    RemoteStore,
    open_store,
    pack,
    unpack,
    unpack_meta,
)

STORES: dict[str, Callable[[Path], AbstractStore]] = {
    "folder": FolderStore,
    "memory": lambda folder: MemoryStore(),
    "remote files": lambda folder: RemoteStore(f"file://{folder}"),
    "remote objects": lambda folder: RemoteStore(f"memory://{folder}"),
}
ADDRESS, OTHER = digest("one"), digest("other")


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def store(request, tmp_path) -> AbstractStore:
    return request.param(tmp_path / "store")


# ------------------------------------------------------------------ objects


@pytest.mark.parametrize("content", [b"", b"\0", b"bygones", bytes(range(256)) * 300])
def test_an_object_comes_back_as_it_was(store, content):
    name = store.put(content)
    assert name == hashlib.sha256(content).hexdigest()
    assert store.has(name)
    assert store.get(name) == content


def test_the_same_bytes_are_one_object(store):
    assert store.put(b"a") == store.put(bytes([97]))
    assert store.put(b"a") != store.put(b"b")


def test_what_was_never_put_is_not_there(store):
    name = digest("never")
    assert not store.has(name)
    with pytest.raises(Damaged, match=name[2:8]):
        store.get(name)
    assert issubclass(Damaged, StoreError)


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(
    "record",
    [
        {},
        {
            "steps": [1, 2],
            "loss": 0.1,
            "none": None,
            "text": 'ü \n"',
            "yes": True,
            "nested": {"a": []},
        },
        {"big": 2**70, "small": 5e-324, "negative zero": -0.0, "third": 1 / 3},
    ],
    ids=["empty", "mixed", "numbers"],
)
def test_a_record_comes_back_as_it_was(store, record):
    store.write_record(ADDRESS, "4-11-abc", record)
    assert store.has_record(ADDRESS, "4-11-abc")
    assert store.records(ADDRESS) == {"4-11-abc": record}
    assert digest(store.records(ADDRESS)["4-11-abc"]) == digest(record)


def test_records_lie_under_their_address_alone(store):
    store.write_record(ADDRESS, "a", {"is": 1})
    store.write_record(ADDRESS, "b", {"is": 2})
    store.write_record(OTHER, "a", {"is": 3})
    assert store.records(ADDRESS) == {"a": {"is": 1}, "b": {"is": 2}}
    assert store.records(OTHER) == {"a": {"is": 3}}
    assert store.records(digest("empty")) == {}
    assert not store.has_record(OTHER, "b")


def test_a_record_of_the_same_name_is_replaced(store):
    store.write_record(ADDRESS, "a", {"is": 1})
    store.write_record(ADDRESS, "a", {"is": 2})
    assert store.records(ADDRESS) == {"a": {"is": 2}}


def test_a_record_is_a_copy(store):
    record = {"steps": [1]}
    store.write_record(ADDRESS, "a", record)
    record["steps"].append(2)
    store.records(ADDRESS)["a"]["steps"].append(3)
    assert store.records(ADDRESS) == {"a": {"steps": [1]}}


# ------------------------------------------------------------------ several at once


def test_writers_at_once_do_not_disturb_each_other(store):
    contents = [bytes([i]) * 5000 for i in range(12)]
    errors: list[BaseException] = []

    def write(start: int) -> None:
        try:
            for turn in range(len(contents) * 4):
                content = contents[(start + turn) % len(contents)]
                assert store.get(store.put(content)) == content
                store.write_record(ADDRESS, "shared", {"content": content.hex()})
                store.write_record(ADDRESS, f"own-{start}", {"turn": turn})
                assert store.records(ADDRESS)[f"own-{start}"] == {"turn": turn}
                assert bytes.fromhex(store.records(ADDRESS)["shared"]["content"]) in contents
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.records(ADDRESS)) == 5


# ------------------------------------------------------------------ a folder, opened and damaged


@pytest.fixture
def folder(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def path_of(folder: FolderStore, name: str) -> Path:
    return folder.folder / "objects" / name[:2] / name[2:]


def test_another_opening_of_the_folder_sees_the_same(folder):
    name = folder.put(b"bygones")
    folder.write_record(ADDRESS, "a", {"is": 1})
    for other in (FolderStore(str(folder.folder)), pickle.loads(pickle.dumps(folder))):
        assert other.get(name) == b"bygones"
        assert other.records(ADDRESS) == {"a": {"is": 1}}


def test_reading_makes_no_folder(tmp_path):
    store = FolderStore(tmp_path / "nothing")
    assert store.records(ADDRESS) == {}
    assert not store.has(digest("x"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("place", range(0, 64, 9))
def test_an_object_with_a_flipped_byte_is_set_aside_and_can_be_put_again(folder, place):
    content = bytes(range(64))
    name = folder.put(content)
    wrong = bytearray(content)
    wrong[place] ^= 1
    path_of(folder, name).write_bytes(wrong)
    with pytest.raises(Damaged, match="SHA-256 differs from its name"):
        folder.get(name)
    assert not folder.has(name)
    assert [path.read_bytes() for path in (folder.folder / "damaged").iterdir()] == [bytes(wrong)]
    folder.put(content)
    assert folder.get(name) == content


RECORD: dict[str, Any] = {
    "start": 4,
    "stop": 11,
    "steps": [4, 5, 11],
    "observed": "ab" * 32,
    "x": 0.25,
}


@pytest.mark.parametrize("bit", [0, 1, 4])
def test_a_record_with_any_flipped_byte_is_the_same_or_is_ignored(folder, bit):
    folder.write_record(ADDRESS, "a", RECORD)
    path = folder.folder / "records" / ADDRESS[:2] / ADDRESS[2:] / "a.json"
    content = path.read_bytes()
    for place in range(len(content)):
        wrong = bytearray(content)
        wrong[place] ^= 1 << bit
        path.write_bytes(wrong)
        assert folder.records(ADDRESS) in ({}, {"a": RECORD}), place
    folder.write_record(ADDRESS, "a", RECORD)
    assert folder.records(ADDRESS) == {"a": RECORD}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "3",
        '{"record": {}}',
        '{"digest": 3, "record": {}}',
        "[" * 200,
        "\x00\xff",
    ],
)
def test_what_is_no_record_is_ignored_and_set_aside(folder, text):
    folder.write_record(ADDRESS, "good", RECORD)
    path = folder.folder / "records" / ADDRESS[:2] / ADDRESS[2:] / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    assert folder.records(ADDRESS) == {"good": RECORD}
    assert not path.exists()


def test_a_file_appears_whole_or_not_at_all(folder, monkeypatch):
    """A process that dies between writing and renaming leaves nothing in the way."""

    def die(*places: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        folder.put(b"half")
    monkeypatch.undo()
    assert not folder.has(hashlib.sha256(b"half").hexdigest())
    with folder.training():
        assert not list((folder.folder / "partial").iterdir())
    assert folder.get(folder.put(b"half")) == b"half"


def test_a_store_in_memory_does_not_travel():
    with pytest.raises(StoreError, match="FolderStore"):
        pickle.dumps(MemoryStore())


def test_a_folder_is_the_same_one_for_a_worker_that_stands_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    travelled = pickle.loads(pickle.dumps(FolderStore("store")))
    assert travelled.folder == tmp_path / "store"


# ------------------------------------------------------------------ a store somewhere else


@pytest.fixture(params=["file", "memory"])
def remote(request, tmp_path) -> RemoteStore:
    return RemoteStore(f"{request.param}://{tmp_path}/store")


def test_another_opening_of_the_url_sees_the_same(remote):
    name = remote.put(b"bygones")
    remote.write_record(ADDRESS, "a", {"is": 1})
    for other in (RemoteStore(remote.url + "/"), pickle.loads(pickle.dumps(remote))):
        assert other.get(name) == b"bygones"
        assert other.records(ADDRESS) == {"a": {"is": 1}}


def test_a_folder_can_be_opened_as_a_url_and_copied_to_one(folder):
    name = folder.put(b"bygones")
    folder.write_record(ADDRESS, "a", RECORD)
    other = RemoteStore(f"file://{folder.folder}")
    assert other.get(name) == b"bygones"
    assert other.records(ADDRESS) == {"a": RECORD}


def test_reading_a_url_makes_nothing(tmp_path):
    store = RemoteStore(f"file://{tmp_path}/nothing")
    assert store.records(ADDRESS) == {}
    assert not store.has(digest("x"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("place", [0, 40, 63])
def test_a_remote_object_with_a_flipped_byte_is_set_aside_and_can_be_put_again(remote, place):
    content = bytes(range(64))
    name = remote.put(content)
    wrong = bytearray(content)
    wrong[place] ^= 1
    remote._files.pipe_file(remote._object(name), bytes(wrong))
    with pytest.raises(Damaged, match="SHA-256 differs from its name"):
        remote.get(name)
    assert not remote.has(name)
    (aside,) = remote._files.ls(f"{remote._root}/damaged", detail=False)
    assert remote._files.cat_file(aside) == bytes(wrong)
    remote.put(content)
    assert remote.get(name) == content


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"digest": 3, "record": {}}', "\x00\xff"])
def test_what_is_no_record_is_ignored_and_set_aside_remotely(remote, text):
    remote.write_record(ADDRESS, "good", RECORD)
    bad = f"{remote._record_folder(ADDRESS)}/bad.json"
    remote._files.pipe_file(bad, text.encode("latin-1"))
    assert remote.records(ADDRESS) == {"good": RECORD}
    assert not remote._files.exists(bad)


def test_a_remote_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    store = RemoteStore(f"file://{tmp_path}/store")

    def die(*places: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(store._files), "mv", die)
    with pytest.raises(KeyboardInterrupt):
        store.put(b"half")
    monkeypatch.undo()
    assert not store.has(hashlib.sha256(b"half").hexdigest())
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert store.get(store.put(b"half")) == b"half"


def test_text_becomes_a_store(tmp_path):
    assert isinstance(open_store(tmp_path), FolderStore)
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert isinstance(open_store("memory://x"), RemoteStore)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x", r"'nonsense://x' is no place for a store: .*Expected a folder, or a URL"),
        ("s3://x", r"a store at 's3://x' needs another package: .*s3fs"),
    ],
)
def test_a_url_that_cannot_be_opened_is_one_sentence(url, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match=words) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)


def test_without_fsspec_a_url_says_what_to_install(monkeypatch):
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreError, match=r"needs fsspec.*pip install 'bygones\[remote\]'$"):
        open_store("memory://x")


# ------------------------------------------------------------------ packing


arrays = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.sampled_from(["<f4", "<f8", "<i8", "|u1"]).flatmap(
        lambda kind: st.lists(st.integers(0, 3), max_size=3).map(
            lambda shape: np.arange(math.prod(shape)).reshape(shape).astype(kind)
        )
    ),
    max_size=4,
)


@settings(deadline=None)
@given(
    arrays, st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
)
def test_packed_arrays_come_back_to_the_bit(given, meta):
    content = pack(given, meta)
    assert content == pack(dict(reversed(list(given.items()))), dict(reversed(list(meta.items()))))
    back, back_meta = unpack(content)
    assert back_meta == unpack_meta(content) == json.loads(json.dumps(meta))
    assert back.keys() == given.keys()
    for name, array in given.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_odd_floats_survive_packing():
    odd = np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324, np.nextafter(1, 2)])
    assert unpack(pack({"x": odd[::-1]}, {}))[0]["x"].tobytes() == odd[::-1].tobytes()
