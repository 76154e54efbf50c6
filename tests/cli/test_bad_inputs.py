"""Bad input is one sentence and an exit code; each line stands for a kind that once had none."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.helpers.commands import Commands, foreign_options, run_here

from bygones.core.errors import UnknownName

SCRIPT = """
import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(4):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
"""
PROXY = """
class Proxy:
    __class__ = property(lambda self: 1 / 0)

study = Proxy
"""
STUDY = "def study(): raise AssertionError('loaded')"
BEFORE_ANY_WORK = {
    "report store --out ''": "--out is empty",
    "report store --out=": "--out is empty",
    "atlas --out ''": "--out is empty",
    "demo --out ''": "--out is empty",
    "plan study.py:": "ends with a colon",
    "plan package.module:": "ends with a colon",
    "plan study.py --half-width 0": "a half-width is a number above 0",
    "plan study.py --half-width nan": "a half-width is a number above 0",
    "atlas --lanes x": "invalid number of lanes 'x'",
    "plan digits --lanes 999999999": "invalid number of lanes '999999999'",
    "plan proxy.py": "must return a bygones.Study; it returned a Proxy",
}
OF_A_SCRIPT = {
    'audit resume --resume "\'" -- script.py': '--resume "\'" cannot be split into words',
    'audit resume --then "\'" -- script.py': "cannot be split into words",
    'audit resume --interrupt "\'" -- script.py': "cannot be split into words",
    'audit divergence --add "\'" -- script.py': "cannot be split into words",
    "audit resume --resume-script '' -- script.py": "there is no script ''",
    "run --seed-env '' -- script.py": "no name of an environment variable",
    "run --seed-env A=B -- script.py": "no name of an environment variable",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "proxy.py").write_text(PROXY)
    return tmp_path


@pytest.mark.parametrize("line", BEFORE_ANY_WORK)
def test_what_means_nothing_is_refused_before_any_work(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_here(monkeypatch, capsys, *shlex.split(line))
    assert said.code == 2
    assert BEFORE_ANY_WORK[line] in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert {path.name for path in folder.iterdir()} == {"script.py", "study.py", "proxy.py"}


@pytest.mark.parametrize("line", OF_A_SCRIPT)
def test_of_a_script_too(line: str, folder: Path, commands: Commands) -> None:
    said = commands(folder, *shlex.split(line))
    assert said.code == 2
    assert OF_A_SCRIPT[line] in said.err
    assert "Traceback" not in said.err


def test_more_siblings_than_help_are_refused_at_once() -> None:
    from tests.helpers.study_recipes import classifier

    from bygones import Arm, Reset, Study, Treatment, Window
    from bygones.core.errors import DesignError

    arm = Arm("reset", Treatment("moments", Reset(), Window(4, 5)))
    with pytest.raises(DesignError, match="siblings are at most 1,000"):
        Study(classifier, [arm], fork_at=4, horizons=(1,), seeds=(0, 1), siblings=100_000)


def test_a_study_with_one_model_has_no_other_to_lead() -> None:
    from tests.helpers.synthetic import make_outcomes

    from bygones.analysis.observed_models import observing

    with pytest.raises(UnknownName, match="and no other; there is none called 'tutor'"):
        observing(make_outcomes(num_seeds=2, num_inputs=2), "tutor")


@pytest.mark.parametrize(
    "line",
    [
        "sources --at 100 -- script.py",
        "plan --fork-at 100 -- script.py",
        "audit inventory --at 50 --until 60 -- script.py",
    ],
)
def test_a_script_that_ends_too_early_is_told_by_options_that_the_command_has(
    line: str, folder: Path, commands: Commands
) -> None:
    said = commands(folder, *shlex.split(line))  # which looks at the options in what is said
    assert said.code == 8
    assert "after 4 optimizer steps" in said.err


def test_an_option_that_a_command_lacks_is_noticed() -> None:
    said = "See `bygones run --fork-at 3`. Choose an earlier --fork-at, --at, or --debug."
    assert foreign_options(["sources", "--at", "3", "--", "script.py"], said) == {"--fork-at"}
    assert foreign_options(["run", "--", "script.py"], said) == {"--at"}
    assert foreign_options(["ledger-diff", "a", "b"], said) == {"--fork-at", "--at"}
