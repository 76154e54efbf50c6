"""Text of a resume check: names as the script writes them, and sentences that end once."""

import re
from pathlib import Path

import pytest

from bygones.audit.resume_check import ResumeReport
from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.remedies import Remedy
from bygones.cli.resume_text import annotate, as_table, headline, print_check, sentences


@pytest.mark.parametrize(
    ("why", "leaves", "said"),
    [
        ("not what was carried", "callbacks[0].seen", "not what was carried (callbacks[0].seen)."),
        ("it cannot be reset.", "", "it cannot be reset."),
        ("it cannot be reset.", "losses[10]", "it cannot be reset (losses[10])."),
    ],
)
def test_brackets_are_balanced_and_no_sentence_ends_twice(why, leaves, said):
    verdict = Verdict("trainer", "FAIL", why, leaves)
    report = ResumeReport("train.py", 5, 5, 9, (0,), (verdict,), (), 0.0, {})
    assert next(sentences(report)) == f"FAIL trainer: {said} What that costs was not measured."


def test_a_long_name_is_shortened_between_its_parts_and_not_within_a_key():
    name = "trainer.callbacks[0].inner.states['model.layers.0'].shadow"
    verdict = Verdict(name, "FAIL", "lost")
    report = ResumeReport("train.py", 5, 5, 9, (0,), (verdict,), (), 0.0, {})
    assert headline(report).endswith("carry trainer.….states['model.layers.0'].shadow.")


def test_a_run_that_began_anew_is_said_once(capsys):
    verdict = Verdict("everything", "FAIL", "the resumed run began anew. No --resume was given")
    report = ResumeReport("train.py", 5, 0, 9, (0,), (verdict,), (), 0.0, {})
    said = "train.py, interrupted after step 5 and started again: the resumed run began anew. "
    assert headline(report) == f"{said}No --resume was given."
    print_check(report)
    assert capsys.readouterr().out.count("began anew") == 1


def test_the_reason_alone_wraps_in_a_terminal():
    report = ResumeReport("train.py", 5, 0, 9, (0,), (Verdict("a", "FAIL", "lost"),), (), 0.0, {})
    columns = as_table(report).columns
    assert [str(one.header) for one in columns if not one.no_wrap] == ["why"]


def test_github_is_told_each_loss_with_its_file_and_its_remedy():
    remedy = Remedy(
        "scheduler", ("checkpoint['s'] = s.state_dict()",), ("s.load_state_dict(checkpoint['s'])",)
    )
    verdicts = (
        Verdict("scheduler", "FAIL", "not 100% of\nwhat was carried"),
        Verdict("weights", "PASS", "restored"),
        Verdict("a:b,c", "FAIL", "lost"),
    )
    script = "torchrun --nproc-per-node 2 examples/train.py --seed {seed}"
    report = ResumeReport(
        script, 5, 0, 9, (0,), verdicts, (), 0.0, {}, remedies={"scheduler": remedy}
    )
    first, second = annotate(report)
    assert first == (
        "::error file=examples/train.py,title=Lost on resuming%3A scheduler::not 100%25 of%0Awhat was "
        "carried. "
        "Save checkpoint['s'] = s.state_dict() and load s.load_state_dict(checkpoint['s'])."
    )
    assert second.startswith("::error file=examples/train.py,title=Lost on resuming%3A a%3Ab%2Cc::")


def test_the_action_passes_each_input_to_the_command():
    text = (Path(__file__).parents[2] / "action.yml").read_text()
    given = set(re.findall(r"^  ([\w-]+):$", text.partition("\nruns:")[0], re.M))
    assert given == set(re.findall(r"inputs\.([\w-]+)", text)) == {
        "script", "resume", "options", "working-directory"
    }  # fmt: skip
    assert "bygones audit resume $OPTIONS" in text
