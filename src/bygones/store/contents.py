"""Contents of a store: its finished studies, what each takes on the disk, and the removal of one.

An object belongs to a study if the study's manifest lists it, or if it is the snapshot at the end of such a
stretch. Studies that share a past share its objects: removing one study keeps what another still needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bygones.core.values import Digest
from bygones.store import FolderStore
from bygones.store.outcomes import Manifest, delete_manifest, read_manifest, read_manifests


@dataclass(frozen=True)
class StudySize:
    """What one study takes: bytes of its own, and bytes that other studies need too."""

    study: str
    own_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class StoreSize:
    """What a store takes, in bytes.

    `unlisted`: objects of no finished study, like those of a run that was stopped, or of maps; `records`:
    what describes the objects; `damaged`: files that failed their check.
    """

    studies: tuple[StudySize, ...]
    unlisted: int
    records: int
    damaged: int
    total: int


@dataclass(frozen=True)
class Removed:
    """What the removal of a study deleted: files of objects and their bytes, and how many records."""

    study: str
    num_objects: int
    num_bytes: int
    num_records: int


def measure_store(store: FolderStore) -> StoreSize:
    """Measure what every study of a store takes, and what belongs to none."""
    sizes, stretches = store.object_sizes(), _stretches(store)
    owned = {name: _objects(one, stretches) for name, one in read_manifests(store).items()}
    owners = Counter(digest for objects in owned.values() for digest in objects)
    studies = tuple(
        StudySize(
            name,
            sum(sizes.get(digest, 0) for digest in objects if owners[digest] == 1),
            sum(sizes.get(digest, 0) for digest in objects if owners[digest] > 1),
        )
        for name, objects in owned.items()
    )
    unlisted = sum(size for digest, size in sizes.items() if digest not in owners)
    records, damaged = store.folder_size("records"), store.folder_size("damaged")
    total = sum(sizes.values()) + records + damaged
    return StoreSize(studies, unlisted, records, damaged, total)


def remove_study(store: FolderStore, name: str) -> Removed:
    """Delete a study and every object that no other study of the store needs.

    A removal that was killed is finished by another one: the manifest goes last.
    Raises StoreError where another process trains into the store, UnknownName for another name.
    """
    with store.training():
        manifest, stretches = read_manifest(store, name), _stretches(store)
        others = [one for other, one in read_manifests(store).items() if other != name]
        mine = _objects(manifest, stretches).difference(
            *(_objects(one, stretches) for one in others)
        )
        freed = [size for digest in sorted(mine) if (size := store.delete(digest)) is not None]
        gone = [one for one in stretches if one.observed in mine]
        for one in gone:
            store.delete_record(one.address, one.name)
        num_beginnings = _delete_beginnings(store, {one.address for one in gone})
        delete_manifest(store, name)
    return Removed(name, len(freed), sum(freed), len(gone) + num_beginnings + 1)


def _delete_beginnings(store: FolderStore, addresses: set[Digest]) -> int:
    """Delete what is left at addresses without any segment: the records of a run's beginning."""
    deleted = 0
    for address in sorted(addresses):
        left = store.records(address)
        if all(record.get("observed") is None for record in left.values()):
            for key in left:
                store.delete_record(address, key)
            deleted += len(left)
    return deleted


@dataclass(frozen=True)
class _Stretch:
    """The record of a trained stretch of a run: where it lies, and the objects that it names."""

    address: Digest
    name: str
    observed: Digest
    snapshot: Digest | None


def _stretches(store: FolderStore) -> list[_Stretch]:
    return [
        _Stretch(address, name, record["observed"], record["snapshot"])
        for address in store.addresses()
        for name, record in store.records(address).items()
        if record.get("observed")
    ]


def _objects(manifest: Manifest, stretches: Sequence[_Stretch]) -> set[Digest]:
    """Return the digests of everything that a study's manifest stands on."""
    listed = {entry.object for entry in manifest.entries}
    snapshots = {one.snapshot for one in stretches if one.observed in listed and one.snapshot}
    return listed | snapshots | ({manifest.images} if manifest.images else set())
