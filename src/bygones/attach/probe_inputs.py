"""Probe inputs: choose what a script's function is observed on, and observe it.

In the pilot run, up to the fork, calls of the trained module are recorded. Inputs of calls in evaluation
mode are preferred, since they are held out from training; else those of training batches are taken. An input
that is delivered several times is taken once. Every seed and arm is then observed on the same inputs, in
evaluation mode, without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bygones.attach import watch as watched
from bygones.attach.live_run import Live
from bygones.core.digest import digest
from bygones.core.errors import ScriptError
from bygones.core.values import Digest
from bygones.training.generators import preserve_global_generators
from bygones.training.leaves import clone_leaf

_MOST_INPUTS = 512
_MOST_CALLS = 64


@dataclass(frozen=True)
class ScriptProbe:
    """Identifies what is observed: the module and the digest of its inputs, or of the user's function."""

    module: str
    inputs: Digest
    kind: Literal["logits", "values"]
    headline: ClassVar[str] = ""


@dataclass(frozen=True)
class Inputs:
    """Arguments of each call of the observed module, and the labels [N] where they are known."""

    module: str
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    labels: np.ndarray | None
    kind: Literal["logits", "values"]
    came_from: str
    function: Callable[[Any], Any] | None = None

    def probe(self) -> ScriptProbe:
        tensors = [_tensors([args, kwargs]) for args, kwargs in self.calls]
        compiled = getattr(self.function, "__code__", None)
        code = "" if compiled is None else digest([compiled.co_code, repr(compiled.co_consts)])
        return ScriptProbe(self.module, digest([tensors, self.labels, code]), self.kind)


class Listener:
    """Record the calls of trained modules in a run that is discarded afterwards."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, bool], list[_Call]] = {}
        self._batch: Any = None
        self._classified: set[int] = set()  # storages of outputs that were passed to cross_entropy
        self._targets: dict[int, Tensor] = {}

    def delivered(self, batch: Any) -> None:
        self._batch = batch

    def attach(self, trained: Mapping[str, nn.Module]) -> None:
        """Hook into each module that holds at least half of the parameters of its root."""
        for label, root in trained.items():
            whole = sum(p.numel() for p in root.parameters())
            for name, module in root.named_modules():
                if 2 * sum(p.numel() for p in module.parameters()) >= whole:
                    path = f"{label}/{name}"
                    module.register_forward_hook(self._hook(path), with_kwargs=True)

    def _hook(self, path: str) -> Callable[..., None]:
        def heard(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls = self._calls.setdefault((path, module.training), [])
            if len(calls) < _MOST_CALLS and isinstance(_first_tensor([args, kwargs]), Tensor):
                answer = _answer(output)
                if answer is not None and answer.ndim >= 1:
                    calls.append(
                        _Call(_kept(args), _kept(kwargs), answer, output, self._labels(args))
                    )

        return heard

    @contextmanager
    def recording_losses(self) -> Iterator[None]:
        """Record the arguments of `cross_entropy`: logits and their labels."""
        taken = nn.functional.cross_entropy

        def listened(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            place = input.untyped_storage().data_ptr()
            self._classified.add(place)
            if not target.is_floating_point():
                self._targets[place] = target.detach().clone()
            return taken(input, target, *args, **kwargs)

        nn.functional.cross_entropy = listened
        try:
            yield
        finally:
            nn.functional.cross_entropy = taken

    def inputs(self, module_of_clock: str) -> Inputs:
        """Choose inputs of the outermost module that was called, from evaluation mode if possible."""
        mine = {key: calls for key, calls in self._calls.items() if calls}
        own = {k: c for k, c in mine.items() if k[0].partition("/")[0] == module_of_clock} or mine
        if not module_of_clock:
            raise ScriptError(
                "the parameters that are trained belong to no torch module, so there is nothing to call "
                "and observe. Give --probe FILE:FUNCTION, which then gets a dict of the trained tensors by "
                "name, and returns an array [inputs, outputs]."
            )
        if not own:
            raise ScriptError(
                "no module that holds the trained parameters was called with a tensor before the fork, so "
                "there are no inputs to observe the function on. Give --probe FILE:FUNCTION, a function of "
                "the model that returns an array [inputs, outputs]."
            )
        path = min((key[0] for key in own), key=lambda p: (p.count("."), len(p)))
        evaluated = (path, False) in own
        chosen = self._distinct(own[path, not evaluated])
        labels = [self._labels_of(call) for call in chosen]
        known = [label for label in labels if label is not None]
        classifies = any(self._is_classified(call) for calls in own.values() for call in calls)
        classifies |= hasattr(chosen[0].output, "logits")
        outputs = chosen[0].answer.shape[-1] if chosen[0].answer.ndim > 1 else 1
        right = len(known) == len(labels) and all(_are_classes(one, outputs) for one in known)
        logits = outputs > 1 and (classifies or right)
        return Inputs(
            path,
            tuple((call.args, call.kwargs) for call in chosen),
            np.concatenate(known) if logits and right else None,
            "logits" if logits else "values",
            f"{sum(len(c.answer) for c in chosen)} inputs of its own "
            f"{'evaluation' if evaluated else 'training'} batches",
        )

    def _distinct(self, calls: list[_Call]) -> list[_Call]:
        """Return the first inputs, each once: a loader delivers an example again in every epoch.

        Inputs are equal if their content is, wherever it lies in memory.
        """
        chosen: list[_Call] = []
        seen: set[Digest] = set()
        for call in calls:
            if call.labels is None:
                call.labels = self._targets.get(call.place)
            keys = call.contents()
            room = _MOST_INPUTS - sum(len(one.answer) for one in chosen)
            first = {key: row for row, key in reversed([*enumerate(keys)]) if key not in seen}
            fresh = sorted(first.values())[:room]
            seen |= first.keys()
            if fresh:
                chosen.append(call.rows(fresh))
        return chosen

    def _labels(self, args: Any) -> Tensor | None:
        """Return the labels that the loader delivered in one batch with these inputs, if it did."""
        given = _first_tensor(args)
        parts = list(self._batch.values()) if isinstance(self._batch, Mapping) else self._batch
        if given is None or not isinstance(parts, list | tuple):
            return None
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if not any(t.shape == given.shape and torch.equal(t, given) for t in tensors):
            return None
        whole = [t for t in tensors if t.ndim == 1 and not t.is_floating_point()]
        fitting = [t for t in whole if len(t) == len(given)]
        return fitting[-1].clone() if fitting else None

    def _is_classified(self, call: _Call) -> bool:
        return call.place in self._classified

    def _labels_of(self, call: _Call) -> np.ndarray | None:
        labels = call.labels
        if (
            labels is None
            or labels.ndim != 1
            or call.answer.ndim != 2
            or len(labels) < len(call.answer)
        ):
            return None
        return labels[: len(call.answer)].cpu().numpy().astype(np.int64)


class _Call:
    """One call of a module: its arguments, its output, and the labels that came in the same batch."""

    def __init__(
        self, args: Any, kwargs: Any, answer: Tensor, output: Any, labels: Tensor | None
    ) -> None:
        self.args, self.kwargs, self.labels = args, kwargs, labels
        self.answer, self.output = answer.detach(), output
        self.place = (
            answer.untyped_storage().data_ptr()
        )  # the storage is kept alive, so no other tensor gets this address

    def contents(self) -> list[Digest]:
        """Return a digest for each input: equal where two inputs are the same.

        A row of the arguments is an input of its own where every array has one for each answer, and rows
        of equal content got equal answers. Otherwise (a graph, a sequence that begins with its time axis)
        an input is the same only if the whole call is.
        """
        size, arrays = len(self.answer), _tensors([self.args, self.kwargs])
        rest = _plain([self.args, self.kwargs])
        if all(len(t) == size for t in arrays if t.ndim):
            rows = [digest([[t[i] if t.ndim else t for t in arrays], rest]) for i in range(size)]
            first = {key: i for i, key in reversed([*enumerate(rows)])}
            alike = self.answer[[first[key] for key in rows]]
            size_of_answers = float(self.answer.abs().max()) if self.answer.numel() else 0.0
            if torch.allclose(alike, self.answer, 0.0, 1e-4 * size_of_answers, equal_nan=True):
                return rows
        whole = digest([arrays, rest])
        return [digest([whole, i]) for i in range(size)]

    def rows(self, chosen: list[int]) -> _Call:
        """Return the same call on some of its inputs only."""
        size = len(self.answer)
        if len(chosen) == size:
            return self
        some = _Call.__new__(_Call)
        some.__dict__.update(vars(self))
        some.args, some.kwargs, some.labels = (
            _mapped(value, lambda t: t[chosen] if t.ndim and len(t) == size else t)
            for value in (self.args, self.kwargs, self.labels)
        )
        some.answer = self.answer[chosen]
        return some


def marked_inputs(trained: Mapping[str, nn.Module]) -> Inputs | None:
    """Return the inputs that the script marked by `bygones.watch`; None if it marked none."""
    marks = watched.marked_models()
    if not marks:
        return None
    for label, root in trained.items():
        for name, module in root.named_modules():
            if module is marks["model"]:
                given = marks["inputs"]
                args = (
                    given
                    if isinstance(given, tuple)
                    else ()
                    if isinstance(given, Mapping)
                    else (given,)
                )
                kwargs = dict(given) if isinstance(given, Mapping) else {}
                labels = marks["labels"]
                return Inputs(
                    f"{label}/{name}",
                    ((_kept(args), _kept(kwargs)),),
                    None if labels is None else np.asarray(labels, dtype=np.int64),
                    "values" if labels is None else "logits",
                    "inputs marked by bygones.watch",
                )
    raise ScriptError(
        "bygones.watch marks a model of which no optimizer updates a parameter; mark the one that is trained."
    )


def observe(
    inputs: Inputs, live: Live, instead: nn.Module | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the observed module's outputs, float [N, C], and the labels [N] where they are known.

    Modules' modes and random generators are left as they were. `instead`: call this module in place of the
    observed one, an average of it, say.
    """
    label, _, name = inputs.module.partition("/")
    trained = live.trained
    module: Any = trained[label].get_submodule(name) if label else dict(live.parameters)
    module = module if instead is None else instead
    roots = [*trained.values(), *([] if instead is None else [instead])]
    modes = [(m, m.training) for root in roots for m in root.modules()]
    with preserve_global_generators(), torch.no_grad():
        try:
            if inputs.function is not None:
                return _call_probe(inputs.function, module)
            module.eval()
            answers = [_answer(module(*clone_all(a), **clone_all(k))) for a, k in inputs.calls]
        finally:
            for one, mode in modes:
                one.training = mode
    rows = [a.float().cpu().numpy() for a in answers if a is not None]
    dtype = np.float32 if inputs.kind == "logits" else np.float64
    return np.concatenate([_as_rows(r, inputs.kind) for r in rows]).astype(dtype), inputs.labels


def _call_probe(
    function: Callable[[Any], Any], module: nn.Module
) -> tuple[np.ndarray, np.ndarray | None]:
    """Call the user's probe, which returns an array [N, C], or (logits [N, C], labels [N])."""
    try:
        result = function(module)
    except Exception as error:
        raise ScriptError(f"the probe raised {type(error).__name__}: {error}.") from error
    outputs, labels = result if isinstance(result, tuple) else (result, None)
    array = np.asarray(outputs.detach().cpu() if isinstance(outputs, Tensor) else outputs)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number):
        raise ScriptError(
            f"the probe must return numbers of two dimensions [inputs, outputs]; it returned "
            f"{array.dtype} {list(array.shape)}."
        )
    return array, None if labels is None else np.asarray(labels, dtype=np.int64)


def clone_all(value: Any) -> Any:
    """Copy all tensors, since a model may write into its inputs."""
    return _mapped(value, clone_leaf)


def _as_rows(array: np.ndarray, kind: str) -> np.ndarray:
    """Reshape to [N, C]: each position of logits is an input; values are flattened after N."""
    if kind == "logits" and array.ndim > 2:
        return array.reshape(-1, array.shape[-1])[:_MOST_INPUTS]
    return array.reshape(len(array), -1)


def _answer(output: Any) -> Tensor | None:
    """Return the main tensor of a module's output: itself, its logits, or the first float tensor in it."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    logits = (
        output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    )
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        found = (_answer(item) for item in output)
        return next((a for a in found if a is not None and a.ndim > 0), None)
    return None


def _are_classes(labels: np.ndarray, num_classes: int) -> bool:
    return bool(labels.min(initial=0) >= 0 and labels.max(initial=0) < num_classes)


def _first_tensor(value: Any) -> Tensor | None:
    return next(iter(_tensors(value)), None)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


def _plain(value: Any) -> list[Any]:
    """Return the numbers and words among the arguments of a call."""
    if value is None or isinstance(value, bool | int | float | str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.items())
    return (
        [one for item in value for one in _plain(item)] if isinstance(value, list | tuple) else []
    )


def _kept(value: Any) -> Any:
    return _mapped(value, lambda t: t.detach().clone())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if type(value) is tuple:
        return tuple(_mapped(item, change) for item in value)
    return value
