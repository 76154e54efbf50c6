"""Remedies: the lines of code that carry a lost source across a checkpoint, where they are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bygones.training.sources import SOURCES

_POSITION = (
    "save the state of the generator that shuffles as it was when the epoch began, and the number of batches "
    "shown since; on resuming, set the first, skip as many batches, then set the generator of now "
    "(docs/resuming.md, 'Saving the position inside an epoch')"
)
_NOTES = {
    "order": _POSITION,
    "everything": "pass the checkpoint to the script (--resume), and load it before the first step",
    "gradients": "save where no gradients are pending, after zero_grad() and at the end of an accumulation "
    "window; or save [p.grad for p in model.parameters()] too",
    "second resume": "save in the resumed run what the first run saves, counted from the same start",
    "what follows from string hashes": "sort what comes from a set, and use hashlib in place of hash()",
}
# Rows of a check that are no source, and for which there is nothing to write.
_NO_SOURCES = ("something else", "written files", "repetition", "sham", "train", "load")
_GLOBAL_STREAMS = {
    "torch": ("torch.get_rng_state()", "torch.set_rng_state({})"),
    "numpy": ("numpy.random.get_state()", "numpy.random.set_state({})"),
    "python": ("random.getstate()", "random.setstate({})"),
}
_PRIVATE_STREAMS = {
    "torch generator": ("{0}.get_state()", "{0}.set_state({1})"),
    "numpy generator": ("{0}.bit_generator.state", "{0}.bit_generator.state = {1}"),
    "numpy random state": ("{0}.get_state()", "{0}.set_state({1})"),
    "python generator": ("{0}.getstate()", "{0}.setstate({1})"),
}
# By source, the kind of object whose state_dict holds it.
_STATE_DICTS = {
    "weights": "model",
    "batchnorm": "model",
    "buffers": "model",
    "moments": "optimizer",
    "scaler": "scaler",
    "averages": "average",
}


@dataclass(frozen=True)
class Remedy:
    """What to write for a lost source. `save`, `load`: lines of code; `note`: what code cannot say."""

    source: str
    save: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        lines = f"save {'; '.join(self.save)} and load {'; '.join(self.load)}" if self.save else ""
        return "; ".join(filter(None, (lines, self.note)))


def suggest_remedies(sources: Iterable[str], objects: Mapping[str, str]) -> dict[str, Remedy]:
    """Return the remedy of each source for which one is known.

    `objects`: the kind of each of the script's objects by name ("optimizer", "scheduler", "torch
    generator"), so that the code has the script's own names.

    >>> str(suggest_remedies(["scheduler"], {"plan": "scheduler"})["scheduler"])
    "save checkpoint['plan'] = plan.state_dict() and load plan.load_state_dict(checkpoint['plan'])"
    """
    found = {source: _remedy(source, objects) for source in sources}
    return {source: remedy for source, remedy in found.items() if remedy is not None}


def _remedy(source: str, objects: Mapping[str, str]) -> Remedy | None:
    if source in _NOTES:
        return Remedy(source, note=_NOTES[source])
    if source.startswith("streams/"):
        return _of_stream(source, objects)
    if source == "scheduler":
        kind = "scheduler" if "scheduler" in objects.values() else "optimizer"
        return _of_state_dicts(source, kind, objects)
    if source in _STATE_DICTS:
        remedy = _of_state_dicts(source, _STATE_DICTS[source], objects)
        note = "register what lies in buffers with persistent=True" if source == "buffers" else ""
        return Remedy(source, remedy.save, remedy.load, note)
    if objects.get(source) in {"model", "average", "optimizer", "scheduler", "scaler"}:
        return _of_names(source, [source])
    if source in SOURCES or source in _NO_SOURCES:
        return None
    return _of_variable(source)


def _of_stream(source: str, objects: Mapping[str, str]) -> Remedy | None:
    name = source.partition("/")[2]
    key = f"checkpoint[{source!r}]"
    if name in _GLOBAL_STREAMS:
        save, load = _GLOBAL_STREAMS[name]
        return Remedy(source, (f"{key} = {save}",), (load.format(key),))
    if objects.get(name) in _PRIVATE_STREAMS and name.replace(".", "_").isidentifier():
        save, load = _PRIVATE_STREAMS[objects[name]]
        return Remedy(source, (f"{key} = {save.format(name)}",), (load.format(name, key),))
    return Remedy(source, note=f"save the state of the generator {name}, and set it on resuming")


def _of_state_dicts(source: str, kind: str, objects: Mapping[str, str]) -> Remedy:
    return _of_names(source, [name for name, one in objects.items() if one == kind] or [kind])


def _of_names(source: str, names: list[str]) -> Remedy:
    return Remedy(
        source,
        tuple(f"checkpoint[{name!r}] = {name}.state_dict()" for name in names),
        tuple(f"{name}.load_state_dict(checkpoint[{name!r}])" for name in names),
    )


def _of_variable(source: str) -> Remedy:
    """Return the remedy of one of the script's own variables or attributes."""
    function, closes, variable = source.partition(" closing over ")
    if closes:
        note = (
            f"{variable} lies in a closure of {function}, out of a checkpoint's reach: keep it in an object "
            f"or a dict, save that, and load it on resuming"
        )
        return Remedy(source, note=note)
    if not source.replace(".", "_").isidentifier():
        return Remedy(source, note=f"save {source}, and set it on resuming")
    key = f"checkpoint[{source!r}]"
    return Remedy(source, (f"{key} = {source}",), (f"{source} = {key}",))
