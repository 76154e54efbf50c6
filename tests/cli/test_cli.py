"""The command line: what it prints, where, and with which exit code. One sentence for every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import Said, run_here

from bygones.cli.catalogues import CATALOGUES, load_catalogue
from bygones.cli.resources import make_executor
from bygones.core.errors import BygonesError, Unexpected

ROOT = Path(__file__).parents[2]

STUDY = """
from tests.helpers.study_recipes import *
from tests.helpers.study_recipes import small as _small
def study(): return _small(("reset", "swap"), seeds=(0, 1, 2))
def chatter():
    print("a study")
    return _small(("reset",), recipe="tests.helpers.study_recipes:talkative", seeds=(0, 1))
def other(): return _small(("hold",), seeds=(0, 1), name="other")
def spaced(): return _small(("hold",), seeds=(0, 1), name="with spaces, and ü")
def nothing(): return 3
def raises(): raise ValueError("no study today")
def unlucky_study():
    from bygones import Recipe
    return _small(("reset",), recipe=Recipe.of(unlucky, place="step"), seeds=(0, 13))
def meddler(): return _small(("reset",), probe=Meddler(), seeds=(0,))
def forgets(): return _small(("reset",), recipe="tests.study.test_measure:forgetful", seeds=(0,))
def refused(): return _small(("reset",), horizons=())
def no_steps(): return Study(classifier, [one("k", Scale(2.0), at(0), "weights")], 0, (0,), (0, 1))

@dataclass(frozen=True)
class Meddler(AbstractProbe):
    kind: ClassVar[Literal["logits", "values"]] = "values"
    def __call__(self, parts):
        with torch.no_grad():
            parts.model[0].weight.mul_(2.0)
        return np.zeros((1, 1))
"""


Bygones = Callable[..., Said]  # (*arguments)


@pytest.fixture
def bygones(tmp_path, monkeypatch, capsys) -> Bygones:
    """Runs a command in this process, in a folder with `study.py`, serially."""
    (tmp_path / "study.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


def strict(text: str) -> Any:
    """JSON as other languages read it: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


SERIAL = ("--workers", "1")


# ------------------------------------------------------------------ the way through


@pytest.mark.usefixtures("page_only")
def test_plan_run_report_and_the_same_again(bygones, tmp_path):
    planned = bygones("plan", "study.py", *SERIAL)
    assert planned.code == 0
    assert "small: 3 seeds × 6 arms" in planned.out
    assert "Left to train: 138." in planned.out
    assert not Path("bygones-store").exists()

    first = bygones("run", "study.py", *SERIAL)
    assert first.code == 0
    assert first.out.startswith("Effect ")
    assert "The sham, an arm that changes nothing, moves it by exactly 0." in first.out
    said = bygones("run", "study.py", "--verbose", *SERIAL)
    assert "resetting moments at step 4" in said.out.lower()
    assert "138 steps to train" in first.err
    assert "\x1b" not in first.out + first.err

    again = bygones("run", "study.py", *SERIAL)
    assert again.out == first.out
    assert "nothing to train" in again.err

    report = bygones("report", "bygones-store")
    assert report.code == 0
    assert report.err == ""
    page = Path(report.out.removeprefix("Report: ").strip())
    assert page.is_file()
    assert "small" in page.read_text()

    effects = strict(bygones("report", "bygones-store", "--json").out)
    assert effects["study"] == "small"
    assert {effect["arm"] for effect in effects["effects"]} >= {"reset", "swap"}
    assert strict(bygones("run", "study.py", "--json", *SERIAL).out) == effects


@pytest.mark.parametrize("command", [["run", *SERIAL], ["plan"], ["check"]], ids=lambda c: c[0])
def test_what_a_recipe_prints_is_no_part_of_the_results(bygones, command):
    said = bygones(*command, "study.py:chatter", "--json")
    assert strict(said.out)
    assert "a study\n" in said.err
    assert "building seed 0\n" in said.err


def test_demo_makes_a_store_and_a_report(bygones, monkeypatch):
    from bygones.cli.load import load_study
    from bygones.zoo.regimes import REGIMES

    monkeypatch.setitem(REGIMES._members, "digits", lambda: load_study("study.py"))  # type: ignore[attr-defined]
    said = bygones("demo", "--out", "here", "--seeds", "0-1", *SERIAL)
    assert said.code == 0
    assert Path("here/store/objects").is_dir()
    assert said.out.splitlines()[-1] == "Report: here/report.html"
    assert Path("here/report.html").is_file()


def test_seeds_can_be_given_and_added(bygones):
    planned = strict(bygones("plan", "study.py", "--seeds", "0,2-3", "--json").out)
    assert planned["seeds"] == 3
    assert planned["steps_left"] == planned["steps_with_sharing"]
    bygones("run", "study.py", "--seeds", "0-1", *SERIAL)
    grown = strict(bygones("plan", "study.py", "--seeds", "0-3", "--json").out)
    assert 2 * grown["steps_left"] == grown["steps_with_sharing"]
    assert planned["designs"] == grown["designs"] == []  # told from three stored seeds
    bygones("run", "study.py", "--seeds", "0-2", *SERIAL)
    designs = strict(bygones("plan", "study.py", "--seeds", "0-9", "--json").out)["designs"]
    assert designs[0].items() >= {"name": "as it is", "seeds": 10, "estimand": "the effect"}.items()
    assert designs[0]["half_width"] > 0


@pytest.mark.usefixtures("page_only")
def test_several_studies_in_one_store_are_told_apart(bygones):
    for name in ("study", "other", "spaced"):
        said = bygones("run", f"study.py:{name}", *SERIAL)
        assert said.code == 0, said.err
    said = bygones("report", "bygones-store", "--json")
    assert said.code == 6
    assert all(name in said.err for name in ("small", "other", "with spaces, and ü"))
    assert bygones("report", "bygones-store", "--study", "with spaces, and ü").code == 0
    said = bygones("report", "bygones-store", "--study", "smal")
    assert said.code == 2
    assert "did you mean 'small'" in said.err


def test_check_proves_or_refuses(bygones):
    said = bygones("check", "study.py")
    assert said.code == 0
    assert "bit-equal" in said.out
    assert "Needed for that: weights" in said.out
    assert strict(bygones("check", "study.py", "--json").out)["passed"] is True
    said = bygones("check", "study.py:forgets")
    assert said.code == 4
    assert "hidden" in said.err


@pytest.mark.parametrize("kind", list(CATALOGUES))
def test_list_says_every_member_of_a_kind_with_a_line(bygones, kind):
    said = bygones("list", kind)
    assert said.code == 0
    assert said.err == ""
    listed = strict(bygones("list", kind, "--json").out)
    assert listed == load_catalogue(kind).summary()
    assert all(line and name in said.out for name, line in listed.items())


def test_a_study_without_steps_can_be_planned_and_run(bygones):
    assert "Left to train: 0." in bygones("plan", "study.py:no_steps").out
    said = bygones("run", "study.py:no_steps", *SERIAL)
    assert said.code == 0, said.err
    assert "everything is stored already" not in said.err


@pytest.mark.usefixtures("page_only")
def test_a_store_at_a_url_is_a_store_like_any_other(bygones, tmp_path):
    here, there = "bygones-store", f"file://{tmp_path}/elsewhere/there"
    first = bygones("run", "study.py", "--json", *SERIAL)
    again = bygones("run", "study.py", "--json", "--store", there, *SERIAL)
    assert strict(again.out) == strict(first.out)
    assert "Left to train: 0." in bygones("plan", "study.py", "--store", there).out
    for command in (["report", "--json"], ["checklist", "--json"], ["contract", "--json"]):
        assert bygones(*command, there).out == bygones(*command, here).out != ""
    said = bygones("report", there)
    assert said.out == "Report: there-report/report.html\n"
    assert Path("there-report/report.html").is_file()
    said = bygones("compare", here, there)
    assert said.code != 0
    assert "small (1) and small (2) trained the same runs" in said.err
    for other in ("others", f"file://{tmp_path}/elsewhere/others"):
        bygones("run", "study.py", "--seeds", "20-22", "--store", other, *SERIAL)
    said = bygones("compare", here, f"file://{tmp_path}/elsewhere/others")
    assert said.out == bygones("compare", here, "others").out != ""
    said = bygones("bundle", there)
    assert said.code == 6
    assert f"'{there}' is a URL" in said.err


@pytest.mark.parametrize(
    ("name", "workers", "address", "device", "expected"),
    [
        (None, 1, None, "cpu", "Serial"),
        (None, 3, None, "cpu", "Processes"),
        (None, None, None, "cuda", "Serial"),
        (None, 3, None, "cuda:1", "Processes"),
        ("serial", 3, None, "cpu", "Serial"),
        ("processes", 1, None, "cpu", "Processes"),
        (None, None, "ray://x:1", "cpu", "Ray"),
        ("ray", None, None, "cpu", "Ray"),
        ("ray", None, None, "cuda", "Ray"),
        ("slurm", 9, None, "cpu", "Slurm"),
        ("slurm", 9, None, "cuda", "Slurm"),
    ],
)
def test_options_make_an_executor(name, workers, address, device, expected):
    made = make_executor(name, workers, address, "folder/store", device)
    assert type(made).__name__ == expected
    assert getattr(made, "address", address) == address
    assert made.num_workers == (1 if expected == "Serial" else workers)
    assert getattr(made, "folder", Path("folder/store-slurm")) == Path("folder/store-slurm")
    gpus = 0 if device == "cpu" else 1
    assert getattr(made, "num_gpus", gpus) == gpus
    if expected == "Slurm":
        assert getattr(made, "parameters", {}).get("gpus_per_node", 0) == gpus


# ------------------------------------------------------------------ one sentence for every error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "digit"], 2, "no regime called 'digit'; did you mean 'digits'"),
        (["run", "missing.py"], 2, "there is no file 'missing.py'"),
        (["run", "study.py:studdy"], 2, "has no 'studdy'"),
        (["run", "study.py:nothing"], 2, "must return a bygones.Study"),
        (["run", "study.py:raises"], 3, "raised ValueError: no study today"),
        (["run", "study.py:refused"], 2, "at least one horizon"),
        (
            ["run", "study.py:unlucky_study", *SERIAL],
            3,
            "raised ValueError at step 3, seed 13: bad luck",
        ),
        (["run", "study.py:meddler", *SERIAL], 5, "changed the run it observed"),
        (["run", "study.py:forgets", *SERIAL], 4, "the fork of"),
        (["run", "no.such.module:study"], 2, "cannot import 'no.such.module'"),
        (["run", "study.py", "--seeds", "3-1"], 2, "invalid seeds '3-1': the range 3-1 is empty"),
        (["run", "study.py", "--seeds", "0,0"], 2, "come more than once"),
        (["run", "study.py", "--seeds", "x"], 2, "invalid seeds 'x': expected numbers and ranges"),
        (["run", "study.py", "--seeds", "²"], 2, "invalid seeds '²'"),
        (["run", "study.py", "--store", "study.py", *SERIAL], 6, "cannot be made"),
        (["run", "study.py", "--workers", "0"], 2, "Invalid value for"),
        (["run", "study.py", "--worker", "1"], 2, "No such option"),
        (
            ["run", "study.py", "--executor", "rey"],
            2,
            "no executor called 'rey'; did you mean 'ray'",
        ),
        (["run", "study.py", "--executor", "slurm"], 2, "--executor slurm needs --workers N"),
        (["run", "study.py", "--executor", "slurm", "--workers", "2"], 7, "no `sbatch` here"),
        (["run", "study.py", "--executor", "serial", "--address", "auto"], 2, "go with 'serial'"),
        (["run", "study.py", "--device", "gpu"], 2, "there is no device 'gpu'. Expected cpu, cuda"),
        (["run", "study.py", "--store", "nonsense://x"], 6, "is no place for a store"),
        (["report", "memory://nothing"], 6, "is gone as soon as this command ends"),
        (["run"], 2, "Missing argument"),
        (["sources", "train.py", "--lr", "1"], 2, "If train.py is a script, put `--` before it"),
        (["runn", "study.py"], 2, "No such command 'runn'"),
        (["report", "nowhere"], 6, "there is no store at 'nowhere'"),
        (["report", "."], 6, "no finished study"),
        (["list", "metric"], 2, "did you mean 'metrics'"),
        (["check", "missing.py"], 2, "there is no file"),
        (["run", "broken.py"], 3, "broken.py raised SyntaxError on import"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_sentence_and_an_exit_code(bygones, arguments, code, words):
    Path("broken.py").write_text("def study(:\n")
    said = bygones(*arguments)
    assert said.code == code, said.err
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.err.strip().splitlines()[-1].startswith("bygones: ")
    assert said.out == ""
    assert "Traceback (most recent call last)" in bygones("--debug", *arguments).err


def test_exit_codes_are_told_apart():
    kinds = [BygonesError, *BygonesError.__subclasses__()]
    kinds.remove(Unexpected)  # has the code that any error of our own has
    assert Unexpected.exit_code == 70
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert not {kind.exit_code for kind in kinds} & {0, 70, 130}


def test_an_error_of_our_own_says_so(bygones, monkeypatch):
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("bygones.cli.load.load_study", broken)
    said = bygones("plan", "study.py")
    assert said.code == 70
    assert "an error that bygones did not expect: ZeroDivisionError: oops" in said.err


# ------------------------------------------------------------------ as a process


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = "from bygones.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "list", "metrics"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.wait(timeout=300)  # of what hangs
    process.stderr.close()
    assert said == ""


HEAVY = """
import sys, bygones.cli.app
loaded = lambda *names: [name for name in names if name in sys.modules]
print(loaded("numpy", "torch", "pydantic", "rich"), file=sys.stderr)
for line in sys.argv[1:]:
    sys.argv = ["bygones", *line.split()]
    try: bygones.cli.app.main()
    except SystemExit as end: assert end.code in (None, 0, 2), line
    print(line, loaded("torch"), file=sys.stderr)
"""
LIGHT = (
    *("--help", "run --help", "audit resume --help", "run digits --fork-at 3", "script --help"),
    *(f"list {kind}" for kind in CATALOGUES),
)
ON_STORED = (
    *("ledger diff a.jsonl a.jsonl", "ledger contract a.jsonl", "ledger contract bygones-store"),
    *("report bygones-store --json", "report bygones-store --out report.html"),
    *("compare bygones-store bygones-store", "checklist bygones-store --markdown"),
    *("bundle write bygones-store --out b.zip", "bundle verify b.zip"),
)


def test_help_and_refusals_and_lists_do_not_wait_for_torch():
    """And the command line itself imports next to nothing."""
    ran = subprocess.run([sys.executable, "-c", HEAVY, *LIGHT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[0] == "[]"
    assert [line for line in LIGHT if f"{line} []\n" not in ran.stderr] == []
    assert "--resume ARGUMENTS" in ran.stdout
    assert "--fork-at is for a script" in ran.stderr


@pytest.mark.long
def test_what_reads_a_stored_study_does_not_wait_for_torch(bygones):
    bygones("run", "study.py", *SERIAL)
    bygones("ledger", "write", "study.py", "--until", 2, "--out", "a.jsonl")
    ran = subprocess.run([sys.executable, "-c", HEAVY, *ON_STORED], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ON_STORED if f"{line} []\n" not in ran.stderr] == []
