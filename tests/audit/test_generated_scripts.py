"""Generated scripts through the resume audit: none accused when complete, the lost piece named first.

`python benchmarks/resume_fuzz.py 200` checks more of them; its counts are in docs/resuming.md.
"""

from __future__ import annotations

import json

import pytest
from tests.helpers.commands import Commands
from tests.helpers.generated_scripts import choose_loss, generate


@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "one piece lost"])
def test_a_generated_script_is_judged_rightly(commands: Commands, tmp_path, number, complete):
    recipe = generate(number)
    losing = "" if complete else choose_loss(number)
    (tmp_path / "train.py").write_text(recipe.script(losing))
    asked = (
        "check-resume",
        "--seeds",
        "0",
        "--at",
        str(recipe.at),
        "--resume=--resume last.pt",
        "--json",
    )
    said = commands(tmp_path, *asked, "--", "train.py", "--seed", "{seed}")
    result = json.loads(said.out)
    failed = result["failed"]
    assert result["passed"] == (said.code == 0)
    if complete:
        assert (said.code, failed) == (0, []), said.err
    else:
        assert said.code == 1
        assert failed[0].startswith(recipe.pieces[losing])
        assert result["remedies"][failed[0]]["save"]


def test_scripts_differ_and_are_the_same_each_time():
    scripts = [generate(number).script(choose_loss(number)) for number in range(40)]
    assert len(set(scripts)) > 35
    assert scripts == [generate(number).script(choose_loss(number)) for number in range(40)]
    for number in range(40):
        compile(scripts[number], f"{number}.py", "exec")
