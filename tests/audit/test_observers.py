"""Evaluating and saving: the one that does not leave the run as it was is named, and with what."""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "specimens" / "observers" / "evaluating.py"

FAULTS = {
    "shared stream": ("evaluate()", "streams/torch"),
    "training mode": ("evaluate()", "batchnorm"),
    "left evaluating": ("evaluate()", "the modules' mode"),
    "saving draws": ("save()", "streams/torch"),
    "reseeds": ("evaluate()", "streams/shuffling"),
    "writes a buffer": ("evaluate()", "buffers"),
}


def watched(commands, folder, *arguments):
    said = commands(
        folder, "observers", "--until", 30, "--horizon", 14, "--json", "--", SCRIPT, *arguments
    )
    assert "Traceback" not in said.err
    return said.code, json.loads(said.out)


def test_evaluating_and_saving_as_they_should_be_leave_no_trace_that_matters(commands, tmp_path):
    code, found = watched(commands, tmp_path)
    assert code == 0
    assert {one["place"].partition(" at ")[0] for one in found} == {
        "evaluate()",
        "save()",
        "torch.save",
        "the evaluation that begins",
    }
    assert not any(one["alters"] for one in found)
    assert all(one["calls"] >= 2 for one in found)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_observer_that_changes_the_run_is_named(fault, commands, tmp_path):
    code, found = watched(commands, tmp_path, "--fault", fault)
    place, source = FAULTS[fault]
    (guilty,) = [one for one in found if one["place"].startswith(place)]
    assert code == 1
    assert source in [trace["source"] for trace in guilty["traces"] if trace["alters"]]
    innocent = {"evaluate()": "save()", "save()": "evaluate()"}[place]
    assert not any(one["alters"] for one in found if one["place"].startswith(innocent))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("print('nothing')", "without a step of any torch optimizer"),
        ("import torch\nraise ValueError('early')", "raised ValueError: early"),
    ],
)
def test_a_script_that_does_not_train_is_refused(text, sentence, commands, tmp_path):
    (tmp_path / "train.py").write_text(text)
    said = commands(tmp_path, "observers", "--", "train.py")
    assert said.code == 8
    assert sentence in said.err
    assert "Traceback" not in said.err
