"""Where tensors lie: what is asked for is checked, what is put elsewhere keeps its shape."""

from __future__ import annotations

import os
from collections import namedtuple
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from bygones.core.errors import DesignError
from bygones.study.rerun import available_device
from bygones.training.contract import Contract
from bygones.training.devices import check_device, deterministic_arithmetic, to_device
from bygones.training.generators import device_generator
from bygones.training.recipe import Parts
from bygones.training.run import Run
from bygones.zoo.worlds import heavy_ball

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
Pair = namedtuple("Pair", "inputs labels")


def test_the_cpu_has_one_name() -> None:
    assert check_device("cpu") == check_device("cpu:0") == "cpu"
    assert Contract.here(device="cpu:0") == Contract.here()


@pytest.mark.parametrize("device", ["gpu", "meta", "", "cuda:x"])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(DesignError, match=f"there is no device '{device}'. Expected cpu, cuda"):
        check_device(device)


@NO_GPU
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_here_is_told_with_the_reason(device: str) -> None:
    with pytest.raises(DesignError, match=rf"'{device}' is not here: torch .* (is a build|sees 0)"):
        Contract.here(device=device)


@NO_GPU
def test_a_bundle_from_a_gpu_is_run_again_on_the_cpu_where_there_is_none() -> None:
    assert available_device("cuda") == available_device("cpu") == "cpu"


def test_a_batch_keeps_its_shape_wherever_it_is_put() -> None:
    batch = {"a": [torch.ones(2), 3], "b": (torch.zeros(1), "text"), "c": Pair(torch.ones(1), None)}
    there: Any = to_device(batch, "meta")
    assert there["a"][0].is_meta
    assert there["a"][1] == 3
    assert there["b"][0].is_meta
    assert there["b"][1] == "text"
    assert isinstance(there["c"], Pair)
    assert there["c"].inputs.is_meta
    assert to_device(batch, "cpu") is batch


def test_a_gpu_computes_in_one_way_and_in_full_precision_while_a_study_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    kept = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # as some programs have it
    try:
        before = _ways()
        with deterministic_arithmetic("cuda"):
            assert _ways() == (False, False, True, False)
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert _ways() == before
        assert before[0] is before[3] is True
    finally:
        torch.backends.cuda.matmul.allow_tf32 = kept


def _ways() -> tuple[bool | str, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32


def test_dropout_draws_from_the_generator_of_the_device() -> None:
    assert device_generator("cpu") is torch.default_generator


def starved(parts: Parts, batch: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more.")


def test_a_device_without_room_is_no_error_of_the_recipe() -> None:
    run = Run(heavy_ball.recipe, 0)
    run.parts.train_step = starved
    with pytest.raises(torch.OutOfMemoryError):
        run.advance(1)
