"""Leaving out of a recorded list of operations what changes nothing.

vmap and autograd write down many views of the whole (`expand` and `view` to the shape that is there, a
transpose of a transpose), views of tensors that never move, and constants that are made anew in each step.
In small networks an operation's overhead is as long as its work, so these are taken out: the arithmetic
stays as it was, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

Kind = tuple[torch.Size, torch.dtype]

_SAME_IF_SHAPE_IS = {
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
}
_CONSTANTS = {
    aten.ones.default,
    aten.zeros.default,
    aten.full.default,
    aten.scalar_tensor.default,
}
_VIEWS = {  # none of them ever copies
    *_SAME_IF_SHAPE_IS,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dims,
}


def simplify(
    graph_module: fx.GraphModule, fixed: Sequence[Tensor], others: Sequence[Tensor]
) -> fx.GraphModule:
    """The same operations without those that change nothing.

    Runs once on the inputs, to see the shapes. `fixed`: the first inputs, which will be these very tensors
    each time, so that a view of one is taken once; `others` change from time to time.
    """
    graph = graph_module.graph
    seen = _Seen(graph_module)
    seen.watch([*(tensor.clone() for tensor in fixed), *others])
    for node in list(graph.nodes):
        same = _the_same(node, seen.kinds) if node.op == "call_function" else None
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    at_hand = dict(zip(graph.find_nodes(op="placeholder"), fixed, strict=False))
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _VIEWS and node.args[0] in at_hand:
            view = node.target(at_hand[node.args[0]], *node.args[1:])
            at_hand[_kept(graph_module, node, view)] = view
        elif node.target in _CONSTANTS and _only_read(node):
            _kept(graph_module, node, node.target(*node.args, **node.kwargs))
    for node in reversed(list(graph.nodes)):
        if node.target in _VIEWS and not node.users:
            graph.erase_node(node)
    graph.lint()
    graph_module.recompile()
    return graph_module


class _Seen(fx.Interpreter):
    """Remembers the shape and the type of what each node gives."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.kinds: dict[fx.Node, Kind] = {}
        self._nodes = list(graph_module.graph.nodes)

    def watch(self, inputs: Sequence[Tensor]) -> None:
        """As `run`, without its progress bar: the bar's lock would outlive a worker that is ended."""
        self.args_iter = iter(inputs)
        for node in self._nodes:
            self.env[node] = self.run_node(node)
        self.env.clear()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.kinds[n] = (value.shape, value.dtype)
        return value


def _the_same(node: fx.Node, kinds: dict[fx.Node, Kind]) -> fx.Node | None:
    """The node that this one is only another name for, if there is one."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node):
        return None
    if node.target in _SAME_IF_SHAPE_IS and kinds[node] == kinds[first]:
        return first
    if node.target is aten.permute.default:
        dims = node.args[1]
        return first if list(dims) == sorted(dims) else None  # type: ignore[arg-type]
    if node.target is aten.mul.Scalar and node.args[1] == 1 and kinds[node] == kinds[first]:
        return first
    if node.target is aten.transpose.int and first.target is aten.transpose.int:
        twice = {d % len(kinds[node][0]) for d in node.args[1:]}  # type: ignore[operator]
        before = {d % len(kinds[node][0]) for d in first.args[1:]}  # type: ignore[operator]
        return first.args[0] if twice == before else None  # type: ignore[return-value]
    return None


def _only_read(node: fx.Node) -> bool:
    """Whether no operation writes into what the node gives, nor into a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or schema.is_mutable:
            return False
        shares = user.target in _VIEWS or any(given.alias_info for given in schema.returns)
        if shares and not _only_read(user):
            return False
    return True


def _kept(graph_module: fx.GraphModule, node: fx.Node, value: Tensor) -> fx.Node:
    """Has a value read instead of made; the node that reads it."""
    name = f"kept_{node.name}"
    graph_module.register_buffer(name, value, persistent=False)
    with graph_module.graph.inserting_before(node):
        read = graph_module.graph.get_attr(name)
    node.replace_all_uses_with(read)
    graph_module.graph.erase_node(node)
    return read
