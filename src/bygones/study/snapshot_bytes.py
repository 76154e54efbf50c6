"""Snapshot serialization: to safetensors bytes and back, exact to the bit, without pickle."""

from __future__ import annotations

import json
import math
import struct
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load, save

from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, State
from bygones.store import unpack_meta
from bygones.training.run import Snapshot

_SEPARATOR = "\x1f"


def encode(snapshot: Snapshot) -> bytes:
    """Encode a snapshot as safetensors bytes: tensors as they are, the rest as JSON in the header."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    nans: dict[str, str] = {}
    on_device: list[str] = []
    groups = {f"state{_SEPARATOR}{name}": state for name, state in snapshot.states.items()}
    groups |= {f"entry{_SEPARATOR}{name}": state for name, state in snapshot.entries.items()}
    for group, state in groups.items():
        for name, leaf in state.items():
            path = f"{group}{_SEPARATOR}{name}"
            if isinstance(leaf, torch.Tensor):
                tensors[path] = leaf.detach().cpu().contiguous()
                if leaf.device.type != "cpu":
                    on_device.append(path)
            elif isinstance(leaf, np.ndarray):
                array = cast(np.ndarray, leaf)
                arrays[path] = [array.dtype.str, list(array.shape)]
                tensors[path] = torch.frombuffer(
                    bytearray(array.tobytes() or b"\0"), dtype=torch.uint8
                )
            elif isinstance(leaf, float) and leaf != leaf:
                nans[path] = struct.pack(">d", leaf).hex()  # JSON has one NaN, a float has many
            else:
                plain[path] = leaf
    order = [[group, list(state)] for group, state in groups.items()]
    meta: dict[str, Any] = {
        "step": snapshot.step,
        "diverged_at": snapshot.diverged_at,
        "shown": snapshot.ids_chain,
        "delivered": snapshot.batch_chain,
        "plain": plain,
        "arrays": arrays,
        "nans": nans,
        "order": order,
    }
    if on_device:
        meta["on_device"] = on_device
    return save(tensors, metadata={"bygones": json.dumps(meta, sort_keys=True)})


def decode(content: bytes, device: str = "cpu") -> Snapshot:
    """Decode a snapshot. Raises `RecipeError` if the bytes are not one.

    `device`: where those tensors are put that were on a device.
    """
    try:
        return _decoded(load(content), unpack_meta(content), device)
    except Exception as error:
        raise RecipeError(
            f"these bytes are not a snapshot: {type(error).__name__}: {str(error).rstrip('.')}."
        ) from error


def _decoded(tensors: dict[str, torch.Tensor], meta: dict[str, Any], device: str) -> Snapshot:
    for path in meta.get("on_device", []):
        tensors[path] = tensors[path].to(device)

    def leaf(path: str) -> Leaf:
        if path in meta["arrays"]:
            described: tuple[str, list[int]] = meta["arrays"][path]
            dtype, shape = described
            size = math.prod(shape) * np.dtype(dtype).itemsize
            return np.frombuffer(tensors[path].numpy().tobytes()[:size], dtype=dtype).reshape(shape)
        if path in meta["nans"]:
            return struct.unpack(">d", bytes.fromhex(meta["nans"][path]))[0]
        return tensors[path] if path in tensors else meta["plain"][path]

    groups: dict[str, State] = {
        group: {name: leaf(f"{group}{_SEPARATOR}{name}") for name in names}
        for group, names in meta["order"]
    }
    kinds: dict[str, dict[str, State]] = {"state": {}, "entry": {}}
    for group, state in groups.items():
        kind, _, name = group.partition(_SEPARATOR)
        kinds[kind][name] = state
    return Snapshot(
        meta["step"],
        kinds["state"],
        kinds["entry"],
        meta["diverged_at"],
        meta["shown"],
        meta["delivered"],
    )
