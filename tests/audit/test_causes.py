"""The cause of a difference: the smallest set of lost sources, and what follows from it."""

import json
from dataclasses import replace

import pytest
from tests.helpers.specimen_checks import AHEAD, BY_HAND, EPOCHS

from bygones.audit.continuation import Continuation, untried
from bygones.audit.resume_runs import Held, ResumedState, ResumePoint
from bygones.audit.resuming.causes import BRIEF, find_causes, note_unexplained, run_search


def run(*losses, variables=()) -> Continuation:
    return Continuation({}, {}, (), (), losses, variables=variables)


RESUMED = ResumedState(ResumePoint(5, 0, "weights", Held({}, {}, frozenset()), {}), run(9, 9, 9))


def search(alone, together, results=(), now=None):
    """Returns what is found, and the arms that were run for it."""
    asked = []

    def answer(name):
        asked.append(name)
        return together(name)

    arms = {"carried": run(1, 2, 3)} | {f"resumed {name}": arm for name, arm in alone.items()}
    causes = run_search(find_causes(arms, alone, results, RESUMED, now or {}), answer)
    return causes, asked


def test_the_smallest_set_is_found_by_leaving_out_one_after_the_other():
    def needed(name):
        both = "resumed moments" in name and "resumed count" in name
        return RESUMED.continuation if both else run(1, 9, 9)

    alone = {"moments": run(1, 2, 9), "count": run(1, 9, 3), "rows": run(0, 2, 3)}
    causes, asked = search(alone, needed)
    assert causes.names == ("moments", "count")
    assert asked == [
        "resumed moments + resumed count + resumed rows",
        "resumed moments + resumed count",
    ]


def test_nothing_is_tried_where_one_source_explains_it_or_none_moves_the_run():
    alone = {"moments": RESUMED.continuation, "count": run(1, 9, 3)}
    assert search(alone, pytest.fail) == search({"moments": run(1, 2, 3)}, pytest.fail)


def test_no_cause_is_claimed_where_all_together_do_not_explain_the_run():
    alone = {"moments": run(1, 2, 9), "count": run(1, 9, 3)}
    causes, asked = search(alone, lambda _: run(1, 9, 9))
    assert causes.names == ()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("of_batch", "after_stream", "is_drawn"),
    [("d2", "other", True), ("kept", "other", False), ("d2", "d2", False)],
    ids=["drawn anew", "carried over", "not from the stream"],
)
def test_a_variable_is_drawn_anew_if_only_the_stream_changes_it(of_batch, after_stream, is_drawn):
    """Two steps later: the batch after another batch was put in, and after another stream was."""

    def followed(name):
        last = {"carried": "d2", "resumed batch": of_batch}.get(
            name.removeprefix(BRIEF), after_stream
        )
        brief = ({"batch": "d1"}, {"batch": last})
        return run(1, 9, 9, variables=brief if name.startswith(BRIEF) else ())

    alone = {"streams/torch": run(1, 2, 9), "batch": run(1, 9, 3)}
    causes, _ = search(alone, followed, results=["batch"], now={"batch": "d0"})
    assert causes.drawn == ({"batch": "streams/torch"} if is_drawn else {})
    same = replace(run(), variables=({"batch": "d0"}, {"batch": "d2"}))
    causes, _ = search(alone, lambda _: same, results=["batch"], now={"batch": "d0"})
    assert causes.drawn == {}  # it is not another one at each boundary


@pytest.mark.parametrize(
    ("lost", "together", "said"),
    [
        (["moments"], None, "This loss does not explain"),
        (["moments", "count"], run(9, 9, 8), "These losses together do not explain"),
        (["moments", "count"], RESUMED.continuation, ""),
        (["moments", "count"], untried("of another shape"), ""),
        ([], None, ""),
    ],
    ids=["one", "several", "explained", "not tried", "none"],
)
def test_a_difference_that_is_not_explained_has_a_note(lost, together, said):
    alone = {"moments": run(9, 9, 7), "count": run(1, 9, 3)}
    causes, _ = search({name: alone[name] for name in lost}, lambda _: together)
    note = " ".join(note_unexplained(lost, causes, RESUMED))
    assert note.startswith(said)
    assert ("in step 7. Something else is lost as well" in note) == bool(said)


@pytest.fixture
def check(commands, tmp_path):
    def verdicts(setting, fault):
        said = commands(tmp_path, *setting.command(fault))
        found = json.loads(said.out)
        return found["failed"], {v["source"]: v["why"] for v in found["verdicts"]}

    return verdicts


def test_two_losses_are_both_causes_and_what_follows_is_none(check):
    failed, why = check(BY_HAND, "moments and position lost")
    assert failed == ["moments", "trainer.position"]
    assert why["trainer.permutation"] == "follows from moments and trainer.position"


@pytest.mark.long
def test_a_batch_that_was_drawn_ahead_is_no_memory(check):
    failed, why = check(AHEAD, "stream lost")
    assert failed == ["streams/torch"]
    drawn = "drawn anew in each step from streams/torch, which is not restored"
    assert why["trainer.noise"] == drawn


@pytest.mark.long
def test_what_is_an_epoch_behind_is_said_to_be(check):
    failed, why = check(EPOCHS, "saved before the epoch ends")
    assert failed == ["scheduler", "weight"]
    assert "an epoch behind" in why["scheduler"]
    assert "an epoch behind" in why["weight"]
