"""Stores: content-addressed objects, in a folder, in memory or somewhere else."""

from pathlib import Path

from bygones.core.errors import StoreError
from bygones.store.base import AbstractStore, Damaged, Record, pack, unpack, unpack_meta
from bygones.store.folder import FolderStore
from bygones.store.memory import MemoryStore
from bygones.store.remote import RemoteStore


def is_remote(place: Path | str) -> bool:
    """Return whether a text is a URL, not a folder's name.

    >>> is_remote("s3://bucket/study"), is_remote("bygones-store")
    (True, False)
    """
    return "://" in str(place)


def open_store(place: Path | str) -> FolderStore | RemoteStore:
    """Open the store at a folder or a URL, like `bygones-store` or `s3://bucket/study`."""
    if not str(place).strip():
        raise StoreError(
            "the place of a store is empty; expected a folder, or a URL like s3://bucket/study."
        )
    return RemoteStore(str(place)) if is_remote(place) else FolderStore(place)


def open_existing(place: Path | str) -> FolderStore | RemoteStore:
    """Open a store to read it. Raises `StoreError` where the folder does not exist."""
    store = open_store(place)
    if isinstance(store, FolderStore) and not store.folder.is_dir():
        raise StoreError(
            f"there is no store at '{place}'. `bygones run STUDY --store {place}` makes one."
        )
    return store


__all__ = [
    "AbstractStore",
    "Damaged",
    "FolderStore",
    "MemoryStore",
    "Record",
    "RemoteStore",
    "is_remote",
    "open_existing",
    "open_store",
    "pack",
    "unpack",
    "unpack_meta",
]
