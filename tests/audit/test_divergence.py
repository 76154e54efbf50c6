"""The first operation at which two runs differ, for changes whose first operation is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.helpers.commands import Commands

from bygones.audit.operations.comparison import Difference, first_difference, measure_size
from bygones.audit.operations.recorder import Operation, OperationRecorder
from bygones.audit.operations.runs import Operations

SCRIPT = Path(__file__).parents[1] / "specimens" / "diverging.py"
LINES = SCRIPT.read_text().splitlines()


def line_of(code: str) -> str:
    (number,) = [n for n, line in enumerate(LINES, start=1) if code in line]
    return f"diverging.py:{number}"


def look(commands: Commands, folder: Path, change: str, *more: str) -> tuple[int, dict]:
    asked = (
        "audit",
        "divergence",
        "--until",
        "5",
        "--json",
        "--add",
        f"--change '{change}' {' '.join(more)}",
    )
    said = commands(folder, *asked, "--", SCRIPT, "--seed", "{seed}")
    assert said.code in (0, 1), said.err
    return said.code, json.loads(said.out)


# change: kind, operation of either run, phase, module, code of its line
KNOWN = {
    "eps": ("argument", "aten.add_.Tensor", "optimizer", "", "optimizer.step()"),
    "draw": ("other operation", "aten.rand", "", "", "torch.rand(1)"),
    "data": ("input", "aten.select.int", "loader", "", "for inputs, labels in loader"),
    "activation": ("other operation", "aten.gelu", "forward", "model.block", "gelu(hidden)"),
    "cast": ("other operation", "aten._to_copy", "forward", "model", "x.bfloat16()"),
}


@pytest.mark.parametrize(
    "change",
    [
        "eps",
        "data",
        "activation",
        pytest.param("draw", marks=pytest.mark.long),
        pytest.param("cast", marks=pytest.mark.long),
    ],
)
def test_the_operation_is_named_with_its_place(commands: Commands, tmp_path, change):
    kind, name, phase, module, code = KNOWN[change]
    status, found = look(commands, tmp_path, change)
    place = found["other"]
    assert (status, found["step"], found["kind"]) == (1, 3, kind), found
    assert (place["name"], place["phase"], place["module"]) == (name, phase, module)
    assert place["line"] == line_of(code)
    assert code in place["code"]


def test_the_size_of_the_difference_and_the_argument_are_said(commands: Commands, tmp_path):
    _, found = look(commands, tmp_path, "print,eps")
    assert found["why"].startswith("Its argument 'other' is 1e-08 in the first run and 0.0001")
    assert found["size"]["absolute"] == pytest.approx(1e-4, rel=0.1)
    assert found["alone"] == 2  # the mean that is printed, and reading it
    assert found["one"]["inner"].startswith("torch/optim/adam.py:")


@pytest.mark.parametrize("change", ["", "print"])
def test_runs_that_train_alike_do_not_differ(commands: Commands, tmp_path, change):
    status, found = look(commands, tmp_path, change)
    assert (status, found["equal"], found["step"], found["until"]) == (0, True, None, 5)


def test_another_seed_differs_before_the_first_update(commands: Commands, tmp_path):
    _, found = look(commands, tmp_path, "", "--seed 1")
    assert found["before_first"]
    assert (found["kind"], found["one"]["name"]) == ("random numbers", "aten.uniform_")


def test_two_ledgers_are_followed_to_the_operation(commands: Commands, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.read_text())
    for name, change in (("a", ""), ("b", "eps")):
        given = ("--", "train.py", "--steps", "4", f"--change={change}")
        said = commands(
            tmp_path, "ledger", "write", "--every", "2", "--out", f"{name}.jsonl", *given
        )
        assert said.code == 0, said.err
    said = commands(tmp_path, "diff", "--deep", "a.jsonl", "b.jsonl")
    assert said.code == 1, said.err
    assert "First differing operation" in said.out
    assert "aten.add_.Tensor in the optimizer at train.py:" in said.out
    (tmp_path / "train.py").write_text(SCRIPT.read_text().replace("lr=0.01", "lr=0.1"))
    said = commands(tmp_path, "diff", "--deep", "a.jsonl", "b.jsonl")
    assert said.code == 9
    assert "is not what a.jsonl records" in said.err


# ------------------------------------------------------------------ recording and comparing in this process


def record(work, keep: int | None = None) -> OperationRecorder:
    recorder = OperationRecorder(str(Path(__file__).parent), keep)
    recorder.begin()
    try:
        work()
    finally:
        recorder.end()
    return recorder


def operations(work) -> Operations:
    found = record(work)
    return Operations(tuple(found.operations), {}, {}, None, False)


def step(seed: int = 0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return model


def test_recording_changes_nothing():
    plain = step()
    seen: list[torch.nn.Module] = []
    record(lambda: seen.append(step()))
    for one, other in zip(plain.parameters(), seen[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_equal_runs_have_equal_operations_though_memory_is_allocated():
    torch.full((1000,), 7.0)  # leaves numbers where the next tensors may be allocated
    assert first_difference(operations(step), operations(step)) is None


def test_a_backward_operation_has_the_module_of_its_forward_pass():
    found = record(step)
    backward = [one for one in found.operations if one.name == "aten.sum.dim_IntList"]
    assert [one.phase for one in backward] == ["backward"]
    names = [type(found.modules[key]).__name__ for key in backward[0].modules]
    assert names == ["Sequential", "Linear"]


def test_a_generator_that_differs_is_told_from_a_result_that_does():
    def drawing(seed):
        generator = torch.Generator().manual_seed(seed)
        return lambda: torch.rand(3, generator=generator)

    found = first_difference(operations(drawing(1)), operations(drawing(2)))
    assert found == Difference(0, 0, "random numbers", "generator")


def test_a_kernel_that_does_not_repeat_itself_is_a_result():
    one = operations(lambda: torch.ones(2).add(1))
    (add,) = [o for o in one.operations if o.name == "aten.add.Tensor"]
    other = Operations((one.operations[0], changed(add)), {}, {}, None, False)
    found = first_difference(one, other)
    assert found == Difference(1, 1, "result")


def changed(operation: Operation) -> Operation:
    return Operation(**{**vars(operation), "returned": ("other",)})


def test_what_is_computed_from_an_extra_operation_is_blamed_on_it():
    x = torch.ones(3)
    one = operations(lambda: x.mul(2).add(1))
    other = operations(lambda: x.mul(2).neg().add(1))
    found = first_difference(one, other)
    assert found is not None
    assert (found.one, found.other, found.kind) == (None, 1, "other operation")


def test_the_values_of_one_operation_are_kept():
    found = record(lambda: torch.ones(2).add(1), keep=1)
    assert found.values is not None
    given, returned = found.values.given["self"], found.values.returned[0]
    assert given is not None
    assert returned is not None
    assert (given.tolist(), returned.tolist()) == ([1.0, 1.0], [2.0, 2.0])


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ulps_count_the_floats_between(kind):
    one = torch.tensor([1.0, -1.0, 0.0], dtype=kind)
    other = one.clone()
    other[0] = (
        torch.nextafter(one[0], torch.tensor(2.0, dtype=kind))
        if kind not in (torch.float16,)
        else one[0] + torch.finfo(kind).eps
    )
    size = measure_size(one, other)
    assert size is not None
    assert (size.ulps, size.count, size.total) == (1, 1, 3)
    other = one.clone()
    other[2] = -0.0
    zeros = measure_size(one, other)
    crossing = measure_size(torch.tensor([1e-45]), torch.tensor([-1e-45]))
    assert zeros is not None
    assert crossing is not None
    assert (zeros.count, crossing.ulps) == (0, 2)
