"""Evaluating and saving: the one that does not leave the run as it was is named, and with what."""

import json
from pathlib import Path

import pytest

SPECIMENS = Path(__file__).parents[1] / "specimens" / "observers"
SCRIPT = SPECIMENS / "evaluating.py"
IDIOMS = SPECIMENS / "idioms.py"

FAULTS = {
    "shared stream": ("evaluate()", "streams/torch"),
    "training mode": ("evaluate()", "batchnorm"),
    "left evaluating": ("evaluate()", "the modules' mode"),
    "saving draws": ("save()", "streams/torch"),
    "reseeds": ("evaluate()", "streams/shuffling"),
    "writes a buffer": ("evaluate()", "buffers"),
}


# By the way of evaluating: the fault's place, and what changes the run.
BY_WAY = {
    "function": ("evaluate()", "the modules' mode", ()),
    "inline": ("the stretch without gradients", "streams/torch", ()),
    "full batch": ("score()", "streams/torch", ()),
    "export": ("export()", "weights", ()),
    "hidden": ("evaluate()", "first.hidden", ("first.hidden",)),
}


def watched(commands, folder, *arguments, script=SCRIPT):
    said = commands(
        folder, "observers", "--until", 30, "--horizon", 14, "--json", "--", script, *arguments
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


@pytest.mark.parametrize("way", BY_WAY)
def test_an_ordinary_way_of_evaluating_is_no_alarm(way, commands, tmp_path):
    code, found = watched(commands, tmp_path, "--way", way, script=IDIOMS)
    assert code == 0
    assert [one["place"] for one in found]
    assert not any(trace["alters"] for one in found for trace in one["traces"])


@pytest.mark.parametrize("way", BY_WAY)
def test_each_way_of_evaluating_is_an_alarm_with_its_fault(way, commands, tmp_path):
    code, found = watched(commands, tmp_path, "--way", way, "--fault", script=IDIOMS)
    place, source, leaves = BY_WAY[way]
    (guilty,) = [one for one in found if one["place"].startswith(place)]
    (trace,) = [t for t in guilty["traces"] if t["alters"] and t["source"] == source]
    assert code == 1
    assert not leaves or tuple(trace["leaves"]) == leaves


@pytest.mark.parametrize("way", ["teacher", "rollout"])
def test_what_training_goes_on_from_is_no_observer(way, commands, tmp_path):
    code, found = watched(commands, tmp_path, "--way", way, script=IDIOMS)
    (one,) = found
    assert code == 0
    assert one["feeds"]


def test_a_mode_that_was_not_put_back_is_judged_by_a_twin_or_not_at_all(commands, tmp_path):
    """A thread of the script's own keeps it from being forked, so no twin can be run."""
    thread = (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (tmp_path / "train.py").write_text(thread + IDIOMS.read_text())
    said = commands(tmp_path, "observers", "--until", 30, "--", "train.py", "--fault")
    assert said.code == 0
    assert "was not tried, since it runs threads" in " ".join(said.out.split())
    assert "another one for it, from" not in said.out


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
