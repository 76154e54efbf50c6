"""Stores: content-addressed objects, in a folder or in memory."""

from bygones.store.base import AbstractStore, Damaged, Record, pack, unpack, unpack_meta
from bygones.store.folder import FolderStore
from bygones.store.memory import MemoryStore

__all__ = [
    "AbstractStore",
    "Damaged",
    "FolderStore",
    "MemoryStore",
    "Record",
    "pack",
    "unpack",
    "unpack_meta",
]
