"""The resume check of functions: complete checkpoints pass, and each piece that is lost is named first."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bygones
from bygones.core.errors import DesignError
from bygones.training.generators import global_states

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(7))
TARGETS = (INPUTS[:, 0] > 0).long()


def make():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        "shadow": [p.detach().clone() for p in model.parameters()],
        "position": 0,
        "history": [],
    }


def train(state, steps):
    for _ in range(steps):
        rows = (torch.arange(8) + 8 * state["position"]) % len(INPUTS)
        state["position"] += 1
        noise = random.random() + np.random.rand()
        loss = nn.functional.cross_entropy(
            state["model"](INPUTS[rows]) * (1 + noise), TARGETS[rows]
        )
        loss.backward()
        state["optimizer"].step()
        state["optimizer"].zero_grad()
        state["scheduler"].step()
        for average, p in zip(state["shadow"], state["model"].parameters(), strict=True):
            average.mul_(0.9).add_(p.detach(), alpha=0.1)
        state["history"].append(loss.item())


STREAMS = {
    "torch": (torch.get_rng_state, torch.set_rng_state),
    "numpy": (np.random.get_state, np.random.set_state),
    "python": (random.getstate, random.setstate),
}


def save(state, path):
    held = {name: state[name].state_dict() for name in ("model", "optimizer", "scheduler")}
    held |= {name: state[name] for name in ("shadow", "position", "history")}
    torch.save(held | {name: get() for name, (get, _) in STREAMS.items()}, path)


def loading(*lost):
    """A function that loads everything that `save` writes but the pieces that are named."""

    def load(state, path):
        held = torch.load(path, weights_only=False)
        for name in ("model", "optimizer", "scheduler"):
            if name not in lost:
                state[name].load_state_dict(
                    {
                        key: value
                        for key, value in held[name].items()
                        if not ("batchnorm" in lost and "running" in key)
                    },
                    **({"strict": False} if name == "model" else {}),
                )
        for name in ("shadow", "position", "history"):
            if name not in lost:
                state[name] = held[name]
        for name, (_, put) in STREAMS.items():
            if name not in lost:
                put(held[name])

    return load


def test_a_complete_checkpoint_passes_and_leaves_no_trace():
    before = global_states()
    result = bygones.check_resume(make, train, save, loading())
    assert result.passed, str(result)
    result.assert_nothing_lost()
    outcomes = {verdict.source: verdict.outcome for verdict in result.verdicts}
    for source in (
        "moments",
        "scheduler",
        "batchnorm",
        "shadow",
        "position",
        *map("streams/{}".format, STREAMS),
    ):
        assert outcomes[source] == "PASS", str(result)
    assert global_states() == before


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("model", "weights"),
        ("optimizer", "moments"),
        ("scheduler", "scheduler"),
        ("batchnorm", "batchnorm"),
        ("shadow", "shadow"),
        ("position", "position"),
        ("torch", "streams/torch"),
        ("numpy", "streams/numpy"),
        ("python", "streams/python"),
    ],
)
def test_a_lost_piece_is_the_first_name(lost, named):
    result = bygones.check_resume(make, train, save, loading(lost))
    assert result.lost[0] == named, str(result)
    with pytest.raises(AssertionError, match=f"does not carry {named}"):
        result.assert_nothing_lost()


def test_a_lost_log_makes_no_difference():
    result = bygones.check_resume(make, train, save, loading("history"))
    assert result.passed
    (verdict,) = [verdict for verdict in result.verdicts if verdict.source == "history"]
    assert (verdict.outcome, verdict.why) == (
        "ABSTAIN",
        "not restored, which makes no difference in this window",
    )


# ------------------------------------------------------------------ other kinds of state


class Trainer:
    """A trainer object, whose batches come from a loader's iterator that it holds."""

    def __init__(self):
        self.shuffling = torch.Generator().manual_seed(3)
        self.loader = DataLoader(
            TensorDataset(INPUTS, TARGETS), batch_size=8, shuffle=True, generator=self.shuffling
        )
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.begin_epoch()

    def begin_epoch(self, shown=0):
        self.epoch_began, self.shown = self.shuffling.get_state(), shown
        self.batches = iter(self.loader)
        for _ in range(shown):
            next(self.batches)

    def train(self, steps):
        for _ in range(steps):
            if self.shown == len(self.loader):
                self.begin_epoch()
            inputs, targets = next(self.batches)
            self.shown += 1
            nn.functional.cross_entropy(self.model(inputs), targets).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self, path):
        held = {"model": self.model.state_dict(), "shown": self.shown, "began": self.epoch_began}
        torch.save(held, path)

    def load(self, path, *, with_position=True):
        held = torch.load(path)
        self.model.load_state_dict(held["model"])
        if with_position:
            self.shuffling.set_state(held["began"])
            self.begin_epoch(held["shown"])


def test_a_trainer_that_keeps_its_position_passes():
    result = bygones.check_resume(
        Trainer, Trainer.train, Trainer.save, Trainer.load, at=7, until=14
    )
    assert result.passed, str(result)


def test_a_lost_position_of_a_loader_is_named():
    result = bygones.check_resume(
        Trainer,
        Trainer.train,
        Trainer.save,
        lambda trainer, path: trainer.load(path, with_position=False),
        at=7,
        until=14,
    )
    assert result.lost, str(result)
    (order,) = [verdict for verdict in result.verdicts if verdict.source == "order"]
    assert "from step 7 on" in order.why, str(result)


COUNTER = {"calls": 0}


def make_scaled():
    model = nn.Linear(4, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train_scaled(state, steps):
    """Train with a loss whose size depends on a global that no checkpoint holds."""
    model, optimizer = state
    for _ in range(steps):
        COUNTER["calls"] += 1
        optimizer.zero_grad()
        (model(INPUTS).square().mean() * COUNTER["calls"]).backward()
        optimizer.step()


def save_model(state, path):
    torch.save(state[0].state_dict(), path)


def load_model(state, path):
    state[0].load_state_dict(torch.load(path))


def test_memory_in_a_global_variable_is_found_and_left_as_it_was():
    result = bygones.check_resume(make_scaled, train_scaled, save_model, load_model)
    assert result.lost == ("COUNTER",), str(result)
    assert COUNTER == {"calls": 0}


def test_a_probe_measures_the_function():
    result = bygones.check_resume(
        make_scaled, train_scaled, save_model, load_model, probe=lambda state: state[0](INPUTS)
    )
    (verdict,) = [verdict for verdict in result.verdicts if verdict.outcome == "FAIL"]
    assert (verdict.lost or {})[""] > 0
    assert (result.ceiling or 0) > 0
    assert "the probe's outputs are moved by" in str(result)
    assert result.to_dict()["lost"] == ["COUNTER"]


def test_what_ends_with_a_call_of_train_is_no_alarm_and_is_said():
    def train_by_loader(state, steps):
        model, optimizer = state
        loader = iter(DataLoader(TensorDataset(INPUTS), batch_size=4))
        for _ in range(steps):
            optimizer.zero_grad()
            model(next(loader)[0]).square().mean().backward()
            optimizer.step()

    def load_all(state, path):
        held = torch.load(path, weights_only=False)
        state[0].load_state_dict(held["model"])
        torch.set_rng_state(held["torch"])

    def save_all(state, path):
        torch.save({"model": state[0].state_dict(), "torch": torch.get_rng_state()}, path)

    result = bygones.check_resume(make_scaled, train_by_loader, save_all, load_all)
    assert result.passed, str(result)
    (verdict,) = [verdict for verdict in result.verdicts if verdict.source == "train"]
    assert verdict.outcome == "ABSTAIN"


# ------------------------------------------------------------------ what cannot be judged


def test_a_run_that_does_not_repeat_itself_is_not_passed():
    def train_at_random(state, steps):
        train_scaled(state, steps)
        with torch.no_grad():
            state[0].weight += np.random.default_rng().random()

    result = bygones.check_resume(make_scaled, train_at_random, save_model, load_model)
    assert result.lost == ("repetition",), str(result)


def test_a_model_that_is_made_once_is_refused():
    model = nn.Linear(4, 2)

    def make_once():
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    with pytest.raises(DesignError, match="the same model twice"):
        bygones.check_resume(make_once, train_scaled, save_model, load_model)


def test_a_load_that_raises_is_a_result():
    def fail(state, path):
        raise KeyError("optimizer")

    result = bygones.check_resume(make_scaled, train_scaled, save_model, fail)
    assert result.lost == ("load",)
    assert "KeyError" in str(result)


def test_steps_have_an_order():
    with pytest.raises(DesignError, match="0 < at < until"):
        bygones.check_resume(make_scaled, train_scaled, save_model, load_model, at=5, until=5)
