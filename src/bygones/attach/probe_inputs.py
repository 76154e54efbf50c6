"""Probe inputs: choose what a script's function is observed on, and observe it.

In the pilot run, up to the fork, calls of the trained module are recorded. Inputs of calls in evaluation
mode are preferred, since they are held out from training; else those of training batches are taken. Of calls
whose outputs differ in shape, those that show the most inputs are taken, and an input that is delivered
several times is taken once. Every seed and arm is then observed on the same inputs, in evaluation mode,
without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from bygones.training.served_weights import served

_MOST_INPUTS = 512
_MOST_CALLS = 64  # of one module, in one mode and with outputs of one shape
_MOST_SHAPES = 16
_HEARD = 8  # modules with this part of their root's parameters, or more, are listened to


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
        self._roots: dict[str, nn.Module] = {}
        self._batch: Any = None
        self._batches: list[Any] = []  # the first ones
        self._classified: set[int] = set()  # storages of outputs that were passed to cross_entropy
        self._targets: dict[int, Tensor] = {}

    def delivered(self, batch: Any) -> None:
        self._batch = batch
        if len(self._batches) < _MOST_CALLS:
            self._batches.append(_kept(batch))

    def attach(self, trained: Mapping[str, nn.Module]) -> None:
        """Hook into each module that holds a good part of the parameters of its root."""
        self._roots = dict(trained)
        for label, root in trained.items():
            for name, module in root.named_modules():
                if _HEARD * _size(module) >= _size(root):
                    path = f"{label}/{name}"
                    module.register_forward_hook(self._hook(path), with_kwargs=True)

    def _hook(self, path: str) -> Callable[..., None]:
        def heard(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls = self._calls.setdefault((path, module.training), [])
            answer = _answer(output)
            if answer is None or answer.ndim == 0 or _first_tensor([args, kwargs]) is None:
                return
            shapes = [(call.shape, call.is_single) for call in calls]
            given = [args, kwargs]
            shape = _shape_of(answer, given), _is_single(answer, given)
            seen = shapes.count(shape)
            if seen < _MOST_CALLS and (seen or len(set(shapes)) < _MOST_SHAPES):
                calls.append(_Call(_kept(args), _kept(kwargs), answer, output, self._labels(args)))

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
                "and observe. A probe that is given gets a dict of the trained tensors by name."
            )
        large = {key: calls for key, calls in own.items() if 2 * self._share(key[0]) >= 1}
        if not large:
            large = self._calls_of_forward(module_of_clock) or own
        if not large:
            raise ScriptError(
                "no module that holds the trained parameters was called with a tensor before the fork, so "
                "there are no inputs to observe the function on. Mark some in the script by bygones.watch."
            )
        path = min((key[0] for key in large), key=lambda p: (p.count("."), -self._share(p), len(p)))
        evaluated = (path, False) in large
        every = [call for key in large if key[0] == path for call in large[key]]
        classified = any(self._is_classified(call) for key in own for call in own[key])
        classified |= any(
            self._is_classified(call) or hasattr(call.output, "logits") for call in every
        )
        calls = _of_one_shape(large[path, not evaluated], by_classes=classified)
        chosen = self._distinct(calls)
        labels = [self._labels_of(call) for call in chosen]
        known = [label for label in labels if label is not None]
        outputs = chosen[0].answer.shape[-1] if chosen[0].outputs > 1 else 1
        right = len(known) == len(labels) and all(_are_classes(one, outputs) for one in known)
        logits = outputs > 1 and (classified or right)
        share = self._share(path)
        part = "" if 2 * share >= 1 else f", to a part with {share:.0%} of the trained parameters"
        return Inputs(
            path,
            tuple((call.args, call.kwargs) for call in chosen),
            np.concatenate(known) if logits and right else None,
            "logits" if logits else "values",
            f"{sum(c.inputs for c in chosen)} inputs of its own "
            f"{'evaluation' if evaluated else 'training'} batches{part}",
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
            room = _MOST_INPUTS - sum(one.inputs for one in chosen)
            first = {key: row for row, key in reversed([*enumerate(keys)]) if key not in seen}
            fresh = sorted(first.values())[:room]
            seen |= first.keys()
            if fresh:
                chosen.append(call.rows(fresh))
        return chosen

    def _share(self, path: str) -> float:
        """Return the part of its root's parameters that a module holds."""
        label, _, name = path.partition("/")
        root = self._roots.get(label)
        return 0.0 if root is None else _size(root.get_submodule(name)) / max(_size(root), 1)

    def _calls_of_forward(self, label: str) -> dict[tuple[str, bool], list[_Call]]:
        """Call a module whose parts alone were called on the first tensor of each batch, if it takes it.

        Such as a LightningModule, whose `training_step` calls its parts, and whose `forward` predicts.
        """
        root, calls = self._roots.get(label), []
        inputs = [t for t in map(_first_tensor, self._batches) if t is not None]
        if root is None:
            return {}
        with preserve_global_generators(), torch.no_grad(), _evaluating([root]):
            try:
                for batch, given in zip(self._batches, inputs, strict=True):
                    output = root(given.clone())
                    answer = _answer(output)
                    if answer is None or answer.ndim == 0:
                        return {}
                    self._batch = batch
                    calls.append(_Call((given,), {}, answer, output, self._labels((given,))))
            except Exception:  # it has no `forward`, or one that takes something else
                return {}
        return {(f"{label}/", True): calls} if calls else {}

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
        # The storage is kept alive, so no other tensor gets this address.
        self.place = answer.untyped_storage().data_ptr()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs of one input."""
        return _shape_of(self.answer, [self.args, self.kwargs])

    @cached_property
    def is_single(self) -> bool:
        return _is_single(self.answer, [self.args, self.kwargs])

    @property
    def inputs(self) -> int:
        return 1 if self.is_single else len(self.answer)

    @property
    def outputs(self) -> int:
        return self.shape[-1] if self.shape else 1

    def contents(self) -> list[Digest]:
        """Return a digest for each input: equal where two inputs are the same.

        A row of the arguments is an input of its own where every array has one for each answer, and rows
        of equal content got equal answers. Otherwise (a graph, a sequence that begins with its time axis)
        an input is the same only if the whole call is. Answers of a run that diverged may not be finite.
        """
        size, arrays = self.inputs, _tensors([self.args, self.kwargs])
        rest = _plain([self.args, self.kwargs])
        if not self.is_single and all(len(t) == size for t in arrays if t.ndim):
            rows = [digest([[t[i] if t.ndim else t for t in arrays], rest]) for i in range(size)]
            first = {key: i for i, key in reversed([*enumerate(rows)])}
            alike = self.answer[[first[key] for key in rows]]
            finite = self.answer.nan_to_num(0, 0, 0).abs()
            most = float(finite.max()) if finite.numel() else 0.0
            if torch.allclose(alike, self.answer, 0.0, 1e-4 * most, equal_nan=True):
                return rows
        whole = digest([arrays, rest])
        return [digest([whole, i]) for i in range(size)]

    def rows(self, chosen: list[int]) -> _Call:
        """Return the same call on some of its inputs only."""
        size = self.inputs
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


def _is_single(answer: Tensor, given: Any) -> bool:
    """Test for a call with one input without a batch axis: its outputs are one vector, of another length."""
    first = _first_tensor(given)
    return answer.ndim == 1 and first is not None and (not first.ndim or len(first) != len(answer))


def _shape_of(answer: Tensor, given: Any) -> tuple[int, ...]:
    return tuple(answer.shape if _is_single(answer, given) else answer.shape[1:])


def _of_one_shape(calls: list[_Call], *, by_classes: bool) -> list[_Call]:
    """Return the calls whose outputs have the shape of which there are the most inputs.

    `by_classes`: each position of the outputs is an input, so their number of positions may differ.
    """
    by_shape: dict[Any, list[_Call]] = {}
    for call in calls:
        positions = by_classes and len(call.shape) > 1
        shape = (len(call.shape), call.outputs) if positions else call.shape
        by_shape.setdefault(shape, []).append(call)
    return max(by_shape.values(), key=lambda some: sum(call.inputs for call in some))


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
    module: Any = dict(live.parameters)
    if label:
        module = served(trained[label], live.optimizers).get_submodule(name)
    module = module if instead is None else instead
    roots = [*trained.values(), *([] if instead is None else [instead])]
    with preserve_global_generators(), torch.no_grad(), _evaluating(roots, but=inputs.function):
        if inputs.function is not None:
            return _call_probe(inputs.function, module)
        module.eval()
        rows = [
            _as_rows(answer, [a, k], inputs.kind)
            for a, k in inputs.calls
            if (answer := _answer(module(*clone_all(a), **clone_all(k)))) is not None
        ]
    if len({row.shape[1:] for row in rows}) != 1:
        raise ScriptError(
            f"the observed module {inputs.module} returned outputs of several sizes for inputs that were "
            f"chosen to agree in it: {sorted({row.shape[1] for row in rows})}. Mark others in the "
            f"script by bygones.watch, or give a probe, a function that returns an array [inputs, outputs]."
        )
    dtype = np.float32 if inputs.kind == "logits" else np.float64
    return np.concatenate(rows).astype(dtype), inputs.labels


@contextmanager
def _evaluating(roots: Sequence[nn.Module], but: Any = None) -> Iterator[None]:
    """Call modules in evaluation mode, and put every mode back. `but`: the user's function sets it itself."""
    modes = [(m, m.training) for root in roots for m in root.modules()]
    try:
        if but is None:
            for root in roots:
                root.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode


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


def _as_rows(answer: Tensor, given: Any, kind: str) -> np.ndarray:
    """Reshape to [N, C]: each position of logits is an input; values are flattened after N."""
    array = answer.float().cpu().numpy()
    if _is_single(answer, given):
        return array.reshape(1, -1)
    if kind == "logits" and array.ndim > 2:
        return array.reshape(-1, array.shape[-1])[:_MOST_INPUTS]
    return array.reshape(len(array), -1)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


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
