"""Ledgers from the command line: of recipes and of unmodified scripts, compared, and their contracts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.commands import ALONE_HERE, Said, run_here

from bygones.store.ledger import read_ledger

STUDY = """
from tests.helpers.study_recipes import *
from tests.helpers.study_recipes import small as _small
def study(): return _small(("reset",), horizons=(0, 1), seeds=(0, 1))
def twice(): return _small(("reset",), horizons=(0, 1), seeds=(0, 1), name="other")
def fussy(seed):
    parts = plain(seed)
    def step(parts, batch):
        if parts.cursor.position > 5: raise ValueError("enough")
        return counted(parts, batch)
    parts.train_step = step
    return parts
"""

# A loop that computes step 12 another way if it is told to, and nothing else.
LOOP = """
import sys, torch
open("begun.txt", "w").close()
torch.manual_seed(int(sys.argv[1]))
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
averaged = {name: p.detach().clone() for name, p in model.named_parameters()}
class Loop:
    def __init__(self): self.seen = 0
loop = Loop()
for step in range(20):
    loss = model(torch.randn(8, 4)).square().mean()
    if "other" in sys.argv and step == 11:
        loss = loss + 1e-6 * model.weight.sum()
    if "draws" in sys.argv and step == 11:
        torch.rand(1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loop.seen += 8
    for name, p in model.named_parameters():
        averaged[name].mul_(0.9).add_(0.1 * p.detach())
    if "raises" in sys.argv and step == 13:
        raise KeyError("step 14")
    if "leaves" in sys.argv and step == 13:
        sys.exit(3)
    if "stops" in sys.argv and step == 13:
        sys.exit()
print("weights", float(model.weight.sum()))
open("made.txt", "w").write("by the script itself")
"""


Bygones = Callable[..., Said]  # (*arguments)


@pytest.fixture
def bygones(tmp_path, monkeypatch, capsys) -> Bygones:
    """Runs a command in this process."""
    (tmp_path / "study.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


@pytest.fixture
def alone(commands, tmp_path) -> Bygones:
    """Runs a command in a process of one thread, in a folder with `loop.py`."""
    (tmp_path / "loop.py").write_text(LOOP)
    return lambda *arguments: commands(tmp_path, *arguments)


# ------------------------------------------------------------------ recipes


def test_a_recipes_ledger_is_written_compared_and_never_written_over(bygones):
    first = bygones("ledger", "study.py:classifier", "--until", 9, "--every", 2, "--out", "a")
    assert first.code == 0, first.err
    assert "Ledger: a, 6 entries, up to boundary 9." in first.err
    read = read_ledger(Path("a"))
    assert read.complete
    assert [e["step"] for e in read.entries] == [0, 2, 4, 6, 8, 9]
    assert read.header["seed"] == 0
    assert read.header["every"] == 2
    assert read.header["contract"]["threads"] == 1
    assert read.header["rng"]["contract"] == "addressed"
    # The same recipe by way of its study.
    bygones("ledger", "study.py", "--until", 9, "--every", 2, "--out", "deep/b")
    said = bygones("diff", "a", "deep/b")
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "The two ledgers are equal, all 6 entries of them, up to boundary 9. Their headers differ in: run."
        "\n"
    )
    before = Path("a").read_bytes()
    again = bygones("ledger", "study.py", "--until", 9, "--out", "a")
    assert again.code == 9
    assert "already, and a ledger is never written over" in again.err
    assert Path("a").read_bytes() == before


def test_watching_a_recipe_leaves_it_as_it_is(bygones):
    from tests.helpers.study_recipes import classifier

    from bygones.training.run import Run

    bygones("ledger", "study.py:classifier", "--until", 7, "--every", 1, "--out", "a")
    run = Run(classifier, 0)
    run.advance(7)
    last = read_ledger(Path("a")).entries[-1]
    assert {k: v for k, v in last.items() if k != "entry"} == run.ledger_entry()


def test_two_seeds_part_and_their_contracts_agree(bygones):
    for seed in (0, 1):
        bygones(
            "ledger", "study.py:plain", "--until", 4, "--every", 1, "--seed", seed, "--out", seed
        )
    said = bygones("diff", "0", "1")
    assert said.code == 1
    assert said.out.startswith("The two runs part from the start on: at boundary 0 they differ in")
    found = json.loads(bygones("diff", "0", "1", "--json").out)
    assert found["equal"] is False
    assert found["step"] == 0
    assert found["first"][-1] == "weights"
    assert ["batches", 1] in found["followed"]
    same = bygones("contract", "0", "--against", "1")
    assert (same.code, same.out) == (0, "The two contracts are equal.\n")


def test_a_run_that_raises_leaves_its_ledger_without_the_last_line(bygones):
    said = bygones("ledger", "study.py:fussy", "--until", 9, "--every", 1, "--out", "a")
    assert said.code == 3
    assert "raised ValueError at step" in said.err
    assert not Path("a").exists() or not read_ledger(Path("a")).complete


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ledger", "study.py", "--out", "x"], 2, "the ledger of a recipe needs --until STEP"),
        (
            ["ledger", "study.py", "plain", "--until", "3", "--out", "x"],
            2,
            "expected one recipe or study",
        ),
        (["ledger", "nothing.py:recipe", "--until", "3", "--out", "x"], 2, "there is no file"),
        (["ledger", "digit", "--until", "3", "--out", "x"], 2, "did you mean 'digits'"),
        (["ledger", "study.py", "--until", "3"], 2, "Missing option"),
        (["diff", "nowhere", "nothing"], 9, "cannot read the ledger nowhere"),
        (["diff", "study.py", "study.py"], 9, "not a line of JSON"),
        (["contract", "nowhere"], 6, "there is nothing at 'nowhere'"),
        (["contract", "."], 6, "no finished study"),
        (["contract", "study.py"], 9, "not a line of JSON"),
        (["checklist", "nowhere"], 6, "there is no store at 'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_sentence(bygones, arguments, code, words):
    said = bygones(*arguments)
    assert (said.code, said.out) == (code, "")
    assert words in said.err
    assert "Traceback" not in said.err


def test_contract_and_checklist_of_a_store(bygones):
    for name in ("study", "twice"):
        assert bygones("run", f"study.py:{name}", "--workers", "1").code == 0
    assert bygones("contract", "bygones-store").code == 6
    said = bygones("contract", "bygones-store", "--study", "small")
    assert said.code == 0
    for words in ("threads", "addressed", "PYTHONHASHSEED", "dropout", "not seen to", "noisy"):
        assert words in said.out
    terms = json.loads(bygones("contract", "bygones-store", "--study", "small", "--json").out)
    assert terms["rng"]["contract"] == "addressed"
    bundle = Path("bundle")
    bundle.mkdir()
    changed = {**terms["numeric"], "threads": 2}
    (bundle / "contract.json").write_text(json.dumps({"numeric": changed, "random": terms["rng"]}))
    against = ("contract", "bygones-store", "--study", "small", "--against", "bundle")
    said = bygones(*against)
    assert (said.code, said.out) == (1, "numeric/threads: 1 here, 2 there\n")
    said = bygones(*against, "--json")
    assert json.loads(said.out)["differences"] == [
        {"what": "numeric/threads", "here": 1, "there": 2}
    ]
    (bundle / "contract.json").write_text("{}")
    assert bygones(*against).code == 9

    filled = json.loads(bygones("checklist", "bygones-store", "--study", "small", "--json").out)
    items = {item["item"]: item["status"] for item in filled["items"]}
    assert items["RNG contract"] == items["Sham"] == items["Multiplicity"] == "answered"
    assert items["Compute: time and energy"] == "not recorded"
    said = bygones("checklist", "bygones-store", "--study", "small")
    assert "answered, " in said.out.splitlines()[0]
    markdown = bygones("checklist", "bygones-store", "--study", "small", "--markdown").out
    assert markdown.startswith("# Reporting checklist: small\n")


# ------------------------------------------------------------------ scripts


def test_a_scripts_ledger_and_the_script_is_itself(alone, tmp_path):
    said = alone("ledger", "--every", 3, "--out", "out/a", "--", "loop.py", "5")
    assert said.code == 0, said.err
    plain = subprocess.run(
        [sys.executable, "loop.py", "5"], cwd=tmp_path, env=ALONE_HERE, capture_output=True
    )
    assert said.out == plain.stdout.decode()
    assert (tmp_path / "made.txt").read_text() == "by the script itself"
    read = read_ledger(tmp_path / "out" / "a")
    assert read.complete
    assert [e["step"] for e in read.entries] == [3, 6, 9, 12, 15, 18, 20]
    holds = set(read.entries[0]["holds"])
    assert {"weights", "moments", "averaged", "loop.seen", "streams/torch"} <= holds
    assert read.header["rng"]["contract"] == "carried"
    assert {s["name"] for s in read.header["rng"]["streams"] if s["drawn"]} == {"torch"}
    assert "7 entries, up to boundary 20. Each took" in said.err


@pytest.fixture
def ledger_of(alone, tmp_path) -> Callable[..., Path]:
    def written(name: str, *arguments: object, every: int = 1) -> Path:
        said = alone("ledger", "--every", every, "--out", name, "--", "loop.py", *arguments)
        assert said.code == 0, said.err
        return tmp_path / name

    return written


def test_equal_runs_have_equal_ledgers_and_others_part_where_they_do(alone, ledger_of):
    one, again = ledger_of("one", 5), ledger_of("again", 5)
    assert one.read_bytes() == again.read_bytes()
    said = alone("diff", "one", "again")
    assert said.out == "The two ledgers are equal, all 20 entries of them, up to boundary 20.\n"
    ledger_of("other", 5, "other")
    said = alone("diff", "one", "other")
    assert said.code == 1
    assert said.out.startswith(
        "The two runs part after boundary 11: at boundary 12 they differ in averaged, loss, gradients, "
        "moments, weights."
    )
    assert "streams" not in said.out
    ledger_of("draws", 5, "draws")
    found = json.loads(alone("diff", "one", "draws", "--json").out)
    assert (found["step"], found["first"]) == (12, ["streams/torch"])
    assert {name: step for name, step in found["followed"]}["loss"] == 13


def test_a_seed_that_the_script_ignores_shows_in_nothing_that_it_uses(alone):
    for seed in (0, 1):
        alone("ledger", "--seed", seed, "--out", f"s{seed}", "--", "loop.py", "5")
    found = json.loads(alone("diff", "s0", "s1", "--json").out)
    # Without {seed} bygones seeds all three generators; the script itself then seeds torch's again.
    assert found["first"] == ["streams/numpy", "streams/python"]
    assert found["followed"] == []
    assert found["headers"] == ["seed"]


@pytest.mark.parametrize(
    ("how", "code", "whole", "words"),
    [
        ("raises", 1, False, "KeyError: 'step 14'"),
        ("leaves", 3, False, "13 entries, up to boundary 13, and no last line"),
        ("stops", 0, True, "14 entries, up to boundary 14"),
    ],
)
def test_how_a_script_ends_is_how_its_ledger_ends(alone, tmp_path, how, code, whole, words):
    said = alone("ledger", "--every", 1, "--out", "a", "--", "loop.py", "5", how)
    assert said.code == code
    assert words in said.err
    read = read_ledger(tmp_path / "a")
    assert read.complete == whole
    if how == "raises":
        trace = said.err[said.err.index("Traceback") :]
        assert "loop.py" in trace.splitlines()[1]
        assert "bygones" not in trace.replace(str(tmp_path), "")
        assert "since the script did not come to its end" in said.err


def test_what_is_there_is_refused_before_the_script_begins(alone, tmp_path):
    (tmp_path / "a").write_text("mine")
    said = alone("ledger", "--out", "a", "--", "loop.py", "5")
    assert said.code == 9
    assert "there is a" in said.err
    assert said.out == ""
    assert not (tmp_path / "begun.txt").exists()
    assert (tmp_path / "a").read_text() == "mine"
    said = alone("ledger", "--out", "b", "--until", 5, "--", "loop.py", "5")
    assert (said.code, said.out) == (2, "")
    said = alone("ledger", "--out", "b", "--", "missing.py")
    assert "there is no script 'missing.py'" in said.err


TURNS = """
import torch
torch.manual_seed(0)
parts = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
optimizers = [torch.optim.Adam(part.parameters()) for part in parts]
for step in range(6):
    for part, optimizer in zip(parts, optimizers):
        part(torch.randn(3, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
"""


def test_scripts_of_other_habits(alone, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "awkward_scripts", tmp_path, dirs_exist_ok=True)
    said = alone("ledger", "--out", "none", "--", "no_optimizer.py")
    assert said.code == 8
    assert "no boundary to write down" in said.err
    assert not (tmp_path / "none").exists()
    for name in ("one", "again"):  # with worker processes of its own
        said = alone("ledger", "--out", name, "--", "two_loaders.py")
        assert said.code == 0, said.err
    assert alone("diff", "one", "again").code == 0
    (tmp_path / "turns.py").write_text(TURNS)
    said = alone("ledger", "--every", 1, "--out", "first", "--", "turns.py")
    assert "--optimizer 1 counts by the one that closes a round" in said.err
    said = alone("ledger", "--every", 1, "--out", "second", "--optimizer", 1, "--", "turns.py")
    assert said.code == 0, said.err
    assert "closes a round" not in said.err
    assert len(read_ledger(tmp_path / "second").entries) == 6
