"""Distinct probe inputs: a script's function is observed on each input once."""

import numpy as np
import torch
from torch import Tensor, nn

from bygones.attach.probe_inputs import Inputs, Listener


def listened(model: nn.Module, *batches: tuple[Tensor, Tensor | None]) -> Inputs:
    """Returns what is chosen after a model in evaluation mode was called on these inputs and labels."""
    listener = Listener()
    listener.attach({"model": model})
    model.eval()
    with listener.recording_losses():
        for x, y in batches:
            out = model(x)
            if y is not None:
                nn.functional.cross_entropy(out, y)
    return listener.inputs("model")


def chosen(inputs: Inputs) -> Tensor:
    return torch.cat([args[0] for args, _ in inputs.calls])


def test_an_input_that_is_delivered_again_is_observed_once():
    x = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(90) % 3
    model = nn.Linear(5, 3)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    # Two epochs, each copied to another address, the second in another order and other batches.
    first = [(x[i : i + 40].clone(), y[i : i + 40]) for i in (0, 40, 80)]
    second = [(x[order[i : i + 32]], y[order[i : i + 32]]) for i in (0, 32, 64)]
    found = listened(model, *first, *second)
    assert torch.equal(chosen(found), x)
    assert found.labels is not None
    assert np.array_equal(found.labels, y.numpy())
    assert found.came_from == "90 inputs of its own evaluation batches"


def test_equal_inputs_within_a_batch_are_one_and_labels_stay_with_their_inputs():
    x = torch.arange(12.0).reshape(6, 2)
    doubled, labels = x[[0, 1, 1, 2, 3, 0, 4, 5]], torch.tensor([0, 1, 1, 2, 0, 0, 1, 2])
    found = listened(nn.Linear(2, 3), (doubled, labels))
    assert torch.equal(chosen(found), x)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_no_more_inputs_than_512_and_the_512_are_distinct():
    x = torch.randn(700, 4, generator=torch.Generator().manual_seed(0))
    batches = [x[:300], x[:300].clone(), x[300:]]
    found = listened(nn.Linear(4, 2), *((one, torch.zeros(len(one)).long()) for one in batches))
    assert torch.equal(chosen(found), x[:512])


def test_a_model_whose_answers_are_not_finite_is_observed_all_the_same():
    """As after a divergence; what is not finite says nothing about how alike rows are."""
    x = torch.arange(8.0).reshape(4, 2)
    for value in (torch.nan, torch.inf):
        model = nn.Linear(2, 3)
        nn.init.constant_(model.weight, value)
        assert torch.equal(chosen(listened(model, (x, None))), x)


class OverTime(nn.Module):
    """Its first axis is time, and an answer depends on the rows before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(3, 4), nn.RNN(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.embed(x))[0]


def test_rows_that_depend_on_one_another_are_not_taken_apart():
    text = torch.tensor([[0], [1], [0], [2], [1], [0]])
    other = text.flip(0).contiguous()
    found = listened(OverTime(), (text, None), (text.clone(), None), (other[:5], None))
    assert [args[0].tolist() for args, _ in found.calls] == [text.tolist(), other[:5].tolist()]


class Graph(nn.Module):
    """Its second argument has no row for each node."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.linear(x).index_add(0, edges[1], self.linear(x)[edges[0]])


def test_a_call_that_cannot_be_taken_apart_is_kept_whole_and_once():
    model, x, edges = Graph(), torch.ones(4, 2), torch.tensor([[0, 1], [2, 3]])
    listener = Listener()
    listener.attach({"model": model})
    model.eval()
    model(x, edges), model(x.clone(), edges.clone()), model(x, edges.flip(0))
    found = listener.inputs("model")
    assert [args[1].tolist() for args, _ in found.calls] == [[[0, 1], [2, 3]], [[2, 3], [0, 1]]]
    assert found.came_from.startswith("8 inputs")
