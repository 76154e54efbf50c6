"""The result of a resume check: what to write for a lost source, and the seeds that are checked."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy
import pytest
import torch

from bygones.audit.resume_check import ResumeReport, _check_at_once
from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.remedies import suggest_remedies
from bygones.core.errors import ScriptError

PAGE = Path(__file__).parents[2] / "docs" / "resuming.md"
OBJECTS = {
    "net": "model",
    "opt": "optimizer",
    "plan": "scheduler",
    "mixup.rng": "numpy generator",
    "shuffling": "torch generator",
    "legacy": "numpy random state",
    "choosing": "python generator",
}


def make_run(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    net(torch.randn(8, 2)).sum().backward()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    plan = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    for _ in range(seed):
        opt.step()
        plan.step()
    return {
        "torch": torch,
        "numpy": numpy,
        "random": random,
        "net": net,
        "opt": opt,
        "plan": plan,
        "mixup": SimpleNamespace(rng=numpy.random.default_rng(seed)),
        "shuffling": torch.Generator().manual_seed(seed),
        "legacy": numpy.random.RandomState(seed),
        "choosing": random.Random(seed),
        "trainer": SimpleNamespace(position=seed),
    }


LOOKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weights": lambda run: run["net"][0].weight.tolist(),
    "batchnorm": lambda run: run["net"][1].running_mean.tolist(),
    "moments": lambda run: run["opt"].state_dict()["state"][0]["momentum_buffer"].tolist(),
    "scheduler": lambda run: run["plan"].get_last_lr(),
    "streams/torch": lambda run: torch.rand(3).tolist(),
    "streams/numpy": lambda run: numpy.random.rand(3).tolist(),
    "streams/python": lambda run: random.random(),
    "streams/mixup.rng": lambda run: run["mixup"].rng.random(3).tolist(),
    "streams/shuffling": lambda run: torch.rand(3, generator=run["shuffling"]).tolist(),
    "streams/legacy": lambda run: run["legacy"].rand(3).tolist(),
    "streams/choosing": lambda run: run["choosing"].random(),
    "trainer.position": lambda run: run["trainer"].position,
}


@pytest.mark.parametrize("source", LOOKS)
def test_the_code_carries_the_source(source):
    remedy = suggest_remedies([source], OBJECTS)[source]
    checkpoint: dict[str, Any] = {}
    first = make_run(1)
    exec("\n".join(remedy.save), {**first, "checkpoint": checkpoint})
    carried = LOOKS[source](first)
    assert LOOKS[source](make_run(2)) != carried
    second = make_run(2)
    exec("\n".join(remedy.load), {**second, "checkpoint": checkpoint})
    assert LOOKS[source](second) == carried


@pytest.mark.parametrize("source", ["order", "gradients", "f closing over calls", "worlds[*].cell"])
def test_what_code_cannot_say_is_said_in_words(source):
    remedy = suggest_remedies([source], OBJECTS)[source]
    assert remedy.note
    assert not remedy.save


def test_no_remedy_is_made_up():
    assert suggest_remedies(["something else", "written files"], OBJECTS) == {}


def test_the_result_for_programs_is_as_documented():
    verdict = Verdict("scheduler", "FAIL", "lost")
    remedies = suggest_remedies(["scheduler"], OBJECTS)
    report = ResumeReport("train.py", 5, 5, 9, (0,), (verdict,), (), 0.0, {}, (), remedies)
    section = PAGE.read_text().partition("## The result for programs")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    result = report.to_dict()
    assert result.keys() == documented
    assert result["passed"] is False
    for part in (result["verdicts"][0], result["remedies"]["scheduler"]):
        assert all(f"`{key}`" in section for key in part.keys() - {"source"})


def test_seeds_side_by_side_are_in_order_and_an_error_of_one_is_raised():
    def check_of(answer: Callable[[], Any]) -> Any:
        return SimpleNamespace(check=answer)

    both = [check_of(lambda seed=seed: (seed, os.getpid())) for seed in (1, 2)]
    (one, first), (two, second) = cast("list[tuple[int, int]]", _check_at_once(both))
    assert (one, two) == (1, 2)
    assert len({first, second, os.getpid()}) == 3  # each in a process of its own
    with pytest.raises(ScriptError, match="does not repeat itself"):
        _check_at_once([both[0], check_of(raise_error)])
    with pytest.raises(ScriptError, match="was killed"):
        _check_at_once([check_of(lambda: os.kill(os.getpid(), 9)), both[1]])


def raise_error() -> None:
    raise ScriptError("it does not repeat itself")
