"""Text of a resume check: names as the script writes them, and sentences that end once."""

import pytest

from bygones.audit.resume_check import ResumeReport
from bygones.audit.resume_verdicts import Verdict
from bygones.cli.resume_text import headline, sentences


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
