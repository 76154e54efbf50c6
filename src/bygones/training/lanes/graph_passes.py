"""Graph passes: remove operations without effect from a traced step (dead views, repeated constants).

vmap and autograd record many operations that return their input (`expand` and `view` to the same shape, a
transpose of a transpose), views of tensors that stay in place, and constants that are created in each
step. In small networks the overhead of an operation equals its work, so these are removed. The arithmetic
stays the same, bit by bit.
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
_VIEWS = {  # these operations never copy
    *_SAME_IF_SHAPE_IS,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dims,
}


def simplify(
    graph_module: fx.GraphModule, fixed: Sequence[Tensor], others: Sequence[Tensor]
) -> fx.GraphModule:
    """Remove operations without effect from a traced graph, in place, and return it.

    Runs the graph once on the inputs, to find the shapes. `fixed`: the first inputs, which are these same
    tensors in every call, so that a view of one is taken once. `others`: inputs that change.
    """
    graph = graph_module.graph
    shapes = _ShapeRecorder(graph_module)
    shapes.record([*(tensor.clone() for tensor in fixed), *others])
    for node in list(graph.nodes):
        same = _find_identical(node, shapes.kinds) if node.op == "call_function" else None
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    constants = dict(zip(graph.find_nodes(op="placeholder"), fixed, strict=False))
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _VIEWS and node.args[0] in constants:
            view = node.target(constants[node.args[0]], *node.args[1:])
            constants[_store_value(graph_module, node, view)] = view
        elif node.target in _CONSTANTS and _only_read(node):
            _store_value(graph_module, node, node.target(*node.args, **node.kwargs))
    for node in reversed(list(graph.nodes)):
        if node.target in _VIEWS and not node.users:
            graph.erase_node(node)
    graph.lint()
    graph_module.recompile()
    return graph_module


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and records shape and dtype of each node's output."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.kinds: dict[fx.Node, Kind] = {}
        self._nodes = list(graph_module.graph.nodes)

    def record(self, inputs: Sequence[Tensor]) -> None:
        """Run the graph as `run` does, without its progress bar, whose lock would survive a killed worker."""
        self.args_iter = iter(inputs)
        for node in self._nodes:
            self.env[node] = self.run_node(node)
        self.env.clear()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.kinds[n] = (value.shape, value.dtype)
        return value


def _find_identical(node: fx.Node, kinds: dict[fx.Node, Kind]) -> fx.Node | None:
    """Return the earlier node with the same value, or None if the node computes something new."""
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
        last = {d % len(kinds[node][0]) for d in node.args[1:]}  # type: ignore[operator]
        before = {d % len(kinds[node][0]) for d in first.args[1:]}  # type: ignore[operator]
        return first.args[0] if last == before else None  # type: ignore[return-value]
    return None


def _only_read(node: fx.Node) -> bool:
    """Return True if no operation writes to the node's output or to a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or schema.is_mutable:
            return False
        is_view = user.target in _VIEWS or any(output.alias_info for output in schema.returns)
        if is_view and not _only_read(user):
            return False
    return True


def _store_value(graph_module: fx.GraphModule, node: fx.Node, value: Tensor) -> fx.Node:
    """Store a node's value in a buffer, replace the node by one that reads it, and return that one."""
    name = f"kept_{node.name}"
    graph_module.register_buffer(name, value, persistent=False)
    with graph_module.graph.inserting_before(node):
        read = graph_module.graph.get_attr(name)
    node.replace_all_uses_with(read)
    graph_module.graph.erase_node(node)
    return read
