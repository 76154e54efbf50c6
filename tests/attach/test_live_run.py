"""The parts that a script's study is made of, each on its own."""

import io
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from bygones.attach import discovery as find
from bygones.attach.batch_hashes import DeliveredBatches
from bygones.attach.discovery import HeldObjects, Place, discover_objects
from bygones.attach.live_run import named_parameters, sources_of
from bygones.attach.sources.carried_streams import CarriedStreams
from bygones.attach.sources.liveness import carried_names
from bygones.attach.sources.script_memory import memory_variables
from bygones.attach.sources.variables import (
    ScriptVariables,
    averaged_paths,
    can_write,
    first_values,
    read,
    write,
)
from bygones.attach.step_clock import Clock, ClockCallbacks
from bygones.audit.resume_arms import ForkingRun
from bygones.core.digest import same_bits
from bygones.core.errors import DesignError, Unexpected
from bygones.core.values import Window
from bygones.scripts.arm_syntax import default_arms, parse_arm, parse_intervention
from bygones.training.interventions import Reseed, Reset, Scale


@pytest.fixture(autouse=True)
def a_small_world(monkeypatch):
    """The tests' own frames hold all of pytest, which no script does; what comes first is looked at first."""
    monkeypatch.setattr(find, "_MOST_THINGS", 30_000)


# ------------------------------------------------------------------ arms


def test_an_arm_is_what_was_typed():
    arm = parse_arm("both=reset:moments[*/exp_avg] + scale(0.5):batchnorm@7:9", fork_at=5)
    first, second = arm.treatments
    assert arm.name == "both"
    assert (first.source, first.leaves, first.window) == ("moments", "*/exp_avg", Window(5, 6))
    assert isinstance(first.intervention, Reset)
    assert (second.source, second.window) == ("batchnorm", Window(7, 9))
    assert second.intervention == Scale(0.5)


def test_a_leaf_pattern_may_hold_a_plus_and_brackets():
    (treatment,) = parse_arm("a=reset:ema[shadow['0.w+b']]@3", fork_at=1).treatments
    assert treatment.leaves == "shadow['0.w+b']"


def test_draws_are_whole_numbers():
    assert parse_intervention("reseed(3)") == Reseed(draw=3)
    with pytest.raises(DesignError, match="no number"):
        parse_intervention("reseed(0.5)")


@pytest.mark.parametrize("text", ["kick(1)", "replace(1)", "sham(1)", "Reset", "scale()", ""])
def test_what_cannot_be_typed_is_refused(text):
    with pytest.raises(DesignError):
        parse_intervention(text)


def test_the_default_arms_fit_the_horizon():
    sources = sources_of(discover_objects([], Path(__file__), {}), 0)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert optimizer is not None
    named = {source.name: source for source in sources} | {"order": sources[0]}
    swaps = {
        horizon: [arm.name for arm in default_arms(named, 10, horizon) if "swap" in arm.name]
        for horizon in (1, 7, 100)
    }
    assert swaps == {1: [], 7: ["swap two 3-step windows"], 100: ["swap two 10-step windows"]}


# ------------------------------------------------------------------ the clock and what was delivered


def train(steps: int, clock: Clock | None = None, loader: DataLoader | None = None) -> list[float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = TensorDataset(torch.randn(12, 3), torch.randint(2, (12,)))
    loader = loader or DataLoader(data, batch_size=4, shuffle=True)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return losses


def test_a_watched_loop_is_the_bare_loop_and_its_losses_are_known():
    clock = Clock()
    with clock.listening():
        watched = train(7)
    assert watched == train(7)
    assert clock.record.losses == watched
    assert clock.step == len(clock.record.batches.steps) == 7


def test_hooks_are_taken_out_again():
    before = (torch.Tensor.backward, _BaseDataLoaderIter.__next__)
    clock = Clock()
    with clock.listening():
        pass
    train(2)
    after = (torch.Tensor.backward, _BaseDataLoaderIter.__next__)
    assert before == after
    assert clock.step == 0


def test_boundaries_are_called_where_the_next_batch_is_asked_for():
    class Reached(ClockCallbacks):
        def at_boundary(self, step: int) -> None:
            reached.append((step, len(clock.record.batches.steps)))

    reached: list[tuple[int, int]] = []
    clock = Clock(callbacks=Reached(), stops=frozenset({2, 5}))
    with clock.listening():
        train(6)
    assert reached == [(2, 2), (5, 5)]


def test_an_error_of_ours_is_not_taken_for_the_scripts():
    class Broken(ClockCallbacks):
        def at_boundary(self, step: int) -> None:
            raise KeyError("ours")

    clock = Clock(callbacks=Broken(), stops=frozenset({1}))
    with clock.listening(), pytest.raises(Unexpected, match="KeyError") as caught:
        train(3)
    assert "at_boundary" in caught.value.place


def test_the_optimizer_that_closes_a_round_is_counted_by():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    first = torch.optim.SGD(one.parameters(), lr=0.1)
    last = torch.optim.SGD(other.parameters(), lr=0.1)
    alternating, often = Clock(), Clock()
    with alternating.listening():
        for _ in range(4):
            first.step()
            last.step()
    with often.listening():
        for _ in range(4):
            last.step()
            first.step()
            first.step()
    assert alternating.slowest_optimizer() == 1
    assert often.slowest_optimizer() == 0  # it steps once a round, so it is the one to count by
    assert (alternating.step, often.step) == (4, 4)


def test_the_chain_depends_on_what_was_delivered_and_on_its_order():
    def chain(*batches: object) -> str:
        delivered = DeliveredBatches()
        for batch in batches:
            delivered.deliver(None, None, batch)
        return delivered.entry

    one, other = torch.zeros(2), torch.ones(2)
    assert chain(one, other) == chain(one.clone(), other.numpy())
    assert len({chain(one, other), chain(other, one), chain(one), chain(one.reshape(2, 1))}) == 4
    assert chain({"x": one, "text": ["a"]}) != chain({"x": one, "text": ["b"]})


def test_indices_are_kept_of_the_data_that_a_step_trained_on():
    delivered, mine, theirs = DeliveredBatches(keeping=True), object(), object()
    delivered.deliver(mine, [1, 2], None)
    delivered.deliver(theirs, [9], None)
    delivered.close(mine)
    delivered.close(mine)
    assert delivered.indices == {0: [[1, 2]], 1: []}


# ------------------------------------------------------------------ loose memory

counter = 0  # a global of this module, as a script has them


class Average:
    """An EMA as people write them."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.updates = 0


def place(owner: object, step: str, path: str) -> Place:
    made = Place(path, owner, step, "thing", None)
    return Place(path, owner, step, made.root, read(made))


def closed_over(value: int) -> types.FunctionType:
    return lambda: value  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("owner", "step", "before", "after"),
    [
        (types.SimpleNamespace(n=1), ".n", 1, 2),
        ({"n": 1}, "['n']", 1, 2),
        ({("a", 1): 1}, "[0]", 1, 2),
        ([1], "[0]", 1, 2),
        (closed_over(1), " closing over value", 1, 2),
        (types.SimpleNamespace(n=np.float32(1.5)), ".n", 1.5, np.asarray(2.5, dtype=np.float32)),
    ],
    ids=["attribute", "key", "odd key", "item", "cell", "numpy number"],
)
def test_a_value_is_read_and_written_where_it_lies(owner, step, before, after):
    there = place(owner, step, f"thing{step}")
    assert read(there) == before
    assert can_write(there)
    write(there, after)
    assert read(there) == after
    assert type(read(there)) is type(before if not isinstance(after, np.ndarray) else after[()])


def test_arrays_are_written_where_they_are():
    tensor, array = torch.zeros(3), np.zeros(3)
    owner = types.SimpleNamespace(t=tensor, a=array)
    for step in (".t", ".a"):
        write(place(owner, step, f"o{step}"), owner.__dict__[step[1:]] + 1)
    assert owner.t is tensor
    assert owner.a is array
    assert tensor.tolist() == array.tolist() == [1, 1, 1]


def test_tuples_cannot_be_written():
    assert not can_write(Place("t[0]", (1, 2), "[0]", "t", 1))


def look(*optimizers: torch.optim.Optimizer) -> find.LiveObjects:
    return discover_objects([*optimizers], Path(__file__), {}, with_data=True, writes_locals=True)


def test_an_average_of_ones_own_is_known_by_its_names_and_a_new_one_equals_the_weights():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = Average(model)
    before = look(optimizer)
    values = first_values(before.data), first_values(before.loose)
    average.updates += 1
    for shadow in average.shadow.values():
        shadow += 1.0
    weights = dict(model.named_parameters())
    sources = memory_variables(look(optimizer), *values, (), Path(__file__), weights, (), ())
    ema = sources["average.shadow"]
    assert isinstance(ema, ScriptVariables)
    assert ema.origin == "averaging"
    assert not ema.is_result
    assert set(ema.capture()) == {"['weight']", "['bias']"}
    assert torch.equal(ema.fresh()["['weight']"], model.weight)
    updates = sources["average.updates"]
    assert updates.is_result
    updates.restore({"value": 7})
    assert average.updates == 7


@pytest.mark.parametrize(
    ("made", "is_average"),
    [
        (lambda model: [p.detach() + 1 for p in model.parameters()], True),
        (lambda model: {n: v + 1 for n, v in model.state_dict().items()}, True),
        (lambda model: {"kept": [p.detach() + 1 for p in model.parameters()]}, False),
        (lambda model: [p.detach() + 1 for p in model.parameters()][:-1], False),
    ],
    ids=["list", "dict", "a list in a dict", "too few"],
)
def test_an_average_in_a_container_is_known_as_one(made, is_average):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    value = made(model)
    there = Place("kept", {"kept": value}, "kept", "kept", value)
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    found = averaged_paths((there,), {"kept"}, weights)
    assert found == (frozenset({"kept"}) if is_average else frozenset())
    if is_average:
        fresh = ScriptVariables("kept", {"value": there}, weights).fresh()["value"]
        assert same_bits(fresh.items[0], next(model.parameters()).detach())


def test_what_a_round_takes_over_is_memory_and_what_it_binds_first_is_not():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    queue, hidden, past, step, loss = torch.zeros(4), None, [], 0, None
    kept: Any = ()
    data: Any = {}
    loose: Any = {}
    for turn in range(3):
        batch = torch.full((2,), float(turn))
        loss = batch + (0.0 if hidden is None else hidden)
        if turn == 0:
            found = look(optimizer)
            data, loose = first_values(found.data), first_values(found.loose)
            kept = carried_names([sys._getframe()])
        hidden = loss * 2
        past.append(turn)
        queue[0] += 1.0
        step += 1
    sources = memory_variables(look(optimizer), data, loose, kept, Path(__file__), {}, (), ())
    assert {"queue", "hidden", "past", "step"} <= sources.keys()
    assert not {"loss", "batch", "turn"} & sources.keys()
    sources["hidden"].restore({"value": None})
    assert hidden is None
    assert [*sources["past"].capture()["value"].items] == [0, 1, 2]


def test_the_attributes_of_a_librarys_object_are_one_source():
    holder: Any = torch.utils.data.TensorDataset(torch.zeros(2))
    holder.first, holder.second = 0, 0
    found = look()
    before = first_values(found.data), first_values(found.loose)
    holder.first, holder.second = 1, 2
    sources = memory_variables(look(), *before, (), Path(__file__), {}, (), ())
    assert {*sources["holder"].capture()} == {"first", "second"}


def test_a_variable_with_the_name_of_another_source_gets_an_underscore():
    weights, weights_ = torch.zeros(2), torch.zeros(2)
    found = look()
    before = first_values(found.data), first_values(found.loose)
    weights += 1.0
    weights_ += 2.0
    sources = memory_variables(look(), *before, (), Path(__file__), {}, (), {"weights"})
    names = {name: source.name for name, source in sources.items() if "weights" in name}
    assert names == {"weights_": "weights_", "weights__": "weights__"}
    assert torch.equal(sources["weights_"].capture()["value"], weights)
    assert list(sources["weights__"].locations) == ["value"]


# ------------------------------------------------------------------ what is alive


def test_modules_optimizers_and_schedules_go_by_the_scripts_names_for_them():
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    descent = torch.optim.Adam(student.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(descent, 5)
    found = discover_objects([descent], Path(__file__), {})
    assert found.optimizers["descent"] is descent  # other tests may have left more in this process
    assert found.schedulers["schedule"] is schedule
    assert found.trained["student"] is student
    assert found.others["teacher"] is teacher
    mine = replace(found, trained={"student": student}, optimizers={"descent": descent})
    assert list(named_parameters(mine)) == ["weight", "bias"]


def test_names_that_were_given_stay():
    student = nn.Linear(2, 2)
    descent = torch.optim.Adam(student.parameters())
    found = discover_objects([descent], Path(__file__), {id(student): "pupil"})
    assert found.trained["pupil"] is student


def test_bare_tensors_go_by_their_names():
    slope = torch.zeros(2, requires_grad=True)
    descent = torch.optim.SGD([slope], lr=0.1)
    found = discover_objects([descent], Path(__file__), {})
    mine = replace(found, trained={}, optimizers={"descent": descent})
    assert list(named_parameters(mine)) == ["slope"]


# ------------------------------------------------------------------ streams


def test_a_stream_is_put_back_and_drawn_again():
    private = {"mine": np.random.default_rng(3), "torchs": torch.Generator().manual_seed(3)}
    streams = CarriedStreams(private, seed=0)
    state = streams.capture()
    drawn = [private["mine"].random(), torch.rand(1).item(), np.random.rand()]
    streams.restore(state)
    assert drawn == [private["mine"].random(), torch.rand(1).item(), np.random.rand()]
    streams.restore({**state, "mine/key": 99})
    assert private["mine"].random() != drawn[0]
    assert torch.rand(1).item() == drawn[1]
    streams.restore({**streams.capture(), "mine/key": 99})  # the same key again changes nothing
    again = streams.capture()
    assert again["mine/key"] == 99


class Wrapped:
    """Passes text on, as tqdm does."""

    def __init__(self) -> None:
        self.write, self.flush = sys.stderr.write, sys.stderr.flush


@pytest.mark.parametrize("stream", [sys.stderr, io.StringIO(), Wrapped()])
def test_what_writes_text_is_a_display_unless_it_holds_what_is_trained(stream):
    bar = SimpleNamespace(shown=stream, n=3, rate=SimpleNamespace(last=0.5))
    trainer = SimpleNamespace(log=stream, model=nn.Linear(2, 2), bar=bar)
    roots = (("trainer", {}, trainer), ("reader", {}, SimpleNamespace(file=io.BytesIO())))
    assert discover_objects([], HeldObjects(roots), {}, with_data=True).displays == ("trainer.bar",)


def test_what_reads_text_is_no_display_for_its_place_in_the_file_is_memory(tmp_path):
    (tmp_path / "corpus.txt").write_text("one two")
    for mode, displays in (("r", ()), ("w", ("lines",)), ("a", ("lines",))):
        with (tmp_path / "corpus.txt").open(mode) as file:
            roots = (("lines", {}, SimpleNamespace(file=file, number=3)),)
            assert discover_objects([], HeldObjects(roots), {}, with_data=True).displays == displays


def test_a_number_that_is_only_shown_is_part_of_a_display():
    run: Any = SimpleNamespace(baseline=SimpleNamespace(data={"bar.rate.last": 0, "bars.n": 0}))
    for path, kind in (("bar.rate.last", "display"), ("bars.n", "variable"), ("m", "result")):
        source = ScriptVariables(path, {"value": Place(path, {}, path, path, 1)}, {})
        assert ForkingRun._kind_of(run, source, ["bar"]) == kind
