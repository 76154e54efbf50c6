"""Probe inputs: which of a module's calls are taken, and what is observed on them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bygones.attach.probe_inputs import Listener, observe
from bygones.core.errors import ScriptError

BATCH = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def live(model: nn.Module) -> Any:
    """What `observe` reads of a run: its trained model."""
    return SimpleNamespace(trained={"model": model}, parameters={}, optimizers=[])


def observed(model, *calls, label="model", loss=None):
    """Return the chosen inputs after these calls, and the outputs observed on them."""
    listener = Listener()
    listener.attach({"model": model})
    with listener.recording_losses():
        for call in calls:
            outputs = call()
            if loss is not None:
                loss(outputs)
    inputs = listener.inputs(label)
    return inputs, observe(inputs, live(model))[0]


@pytest.mark.parametrize("singles", [1, 6, 100])
def test_single_inputs_and_batches_of_one_module_go_together(singles):
    """A row without a batch axis is one input; rows alone, rows first, more rows than are kept."""
    model = nn.Linear(4, 2)
    alone = torch.randn(singles, 4)
    rows = [lambda x=x: model(x) for x in alone]
    inputs, outputs = observed(model, *rows, lambda: model(BATCH))
    assert outputs.shape == (len(inputs.calls) + 5, 2)
    torch.testing.assert_close(torch.from_numpy(outputs[-6:]), model(BATCH).detach().double())


def test_a_module_that_is_called_with_single_inputs_only_is_observed_on_them():
    model = nn.Linear(4, 2)
    inputs, outputs = observed(model, *[lambda x=x: model(x) for x in BATCH[:3]])
    assert outputs.shape == (3, 2)
    assert inputs.came_from == "3 inputs of its own training batches"


def test_a_batch_of_numbers_is_not_taken_for_one_input():
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    assert observed(model, lambda: model(BATCH))[1].shape == (6, 1)


def test_of_values_of_several_lengths_the_one_with_most_inputs_is_taken():
    model = nn.GRU(3, 2, batch_first=True)
    lengths = [torch.randn(8, 5 + step % 4, 3) for step in range(9)]  # length 5 comes three times
    inputs, outputs = observed(model, *[lambda x=x: model(x) for x in lengths])
    assert outputs.shape == (24, 10)
    assert {args[0].shape[1] for args, _ in inputs.calls} == {5}


def test_logits_of_several_lengths_are_all_taken_since_each_position_is_an_input():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5))
    draw = torch.Generator().manual_seed(0)
    lengths = [torch.randint(0, 7, (2, 3 + step % 2), generator=draw) for step in range(4)]
    _, outputs = observed(
        model,
        *[lambda x=x: model(x) for x in lengths],
        loss=lambda out: nn.functional.cross_entropy(
            out.flatten(0, 1), torch.zeros(out.shape[:2], dtype=torch.long).flatten()
        ),
    )
    assert outputs.shape == (28, 5)


class Parts(nn.Module):
    """A module whose parts are called by its training step; its own `forward` predicts."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.extra = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x))


def test_a_module_whose_parts_are_called_is_observed_by_its_own_forward():
    model, listener = Parts(), Listener()
    listener.attach({"model": model})
    for _ in range(2):
        listener.delivered((BATCH, torch.zeros(6, dtype=torch.long)))
        hidden = model.body(BATCH)
        model.head(hidden), model.extra(hidden)
    inputs = listener.inputs("model")
    seen, labels = observe(inputs, live(model))
    assert (inputs.module, inputs.kind) == ("model/", "logits")
    torch.testing.assert_close(torch.from_numpy(seen[:6]), model(BATCH).detach())
    assert labels is not None
    assert labels.tolist() == [0] * 6  # the second batch shows the same inputs
    assert model.training


def test_without_a_forward_the_largest_part_is_observed_and_said():
    model = nn.ModuleDict({str(i): nn.Linear(4, 4 + (i == 2)) for i in range(4)})
    inputs, outputs = observed(model, *[lambda part=part: part(BATCH) for part in model.values()])
    assert outputs.shape == (6, 5)
    assert "to a part with 29% of the trained parameters" in inputs.came_from


def test_a_module_that_changes_its_size_is_refused_and_not_a_crash():
    class Growing(nn.Linear):
        grown = 0

        def forward(self, input):
            if not self.training:
                self.grown += 1
            return super().forward(input)[:, : 1 + self.grown]

    model = Growing(4, 3)
    with pytest.raises(ScriptError, match="several sizes"):
        observed(model, lambda: model(BATCH), lambda: model(BATCH + 1))
