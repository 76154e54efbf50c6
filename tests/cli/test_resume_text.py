"""Text of a resume check: names as the script writes them, and sentences that end once."""

import pytest

from bygones.audit.resume_check import ResumeReport
from bygones.audit.resume_verdicts import Verdict
from bygones.cli.resume_text import as_table, headline, print_check, sentences


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
