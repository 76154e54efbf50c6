"""A watched process: how its script ended, what it replies, and which errors come back to the parent."""

import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from rich.live import _RefreshThread

from bygones.attach.index_override import IndexOverride, QueuedIndices
from bygones.attach.isolation.progress_bars import without_redrawing
from bygones.attach.isolation.script import Script
from bygones.attach.watched_process import (
    CannotFork,
    CountBy,
    Ending,
    WatchedProcess,
    run_by_slowest,
    run_in_child,
)
from bygones.core.errors import RecipeError, ScriptError, Unexpected


class Echo(WatchedProcess):
    """Replies how its script ended."""

    def finish(self, ending: Ending) -> NoReturn:
        self.parent.reply_and_exit((str(ending), ending.raised, ending.failed))


class Early(WatchedProcess):
    """Replies that its script ended too early."""

    def finish(self, ending: Ending) -> NoReturn:
        self.refuse(self.ended_early(ending, "step 5"))


class Refusing(WatchedProcess):
    """Refuses its script with an error of bygones."""

    def finish(self, ending: Ending) -> NoReturn:
        self.refuse(RecipeError("refused"))


class Broken(WatchedProcess):
    """Has an error of its own, after its script has ended."""

    def finish(self, ending: Ending) -> NoReturn:
        raise KeyError("nothing there")


class Counting(WatchedProcess):
    """Asks to be counted by the optimizer of number 2, and replies by which one it was counted."""

    def finish(self, ending: Ending) -> NoReturn:
        by = self.script.clock
        self.parent.reply_and_exit(by if by == 2 else CountBy(2))


def run(kind: type[WatchedProcess], folder: Path, code: str, **settings: Any) -> object:
    (folder / "script.py").write_text(code)
    script = Script("script.py")
    return run_in_child(lambda parent: kind(script, folder, 0, folder / "run", parent), **settings)


@pytest.mark.parametrize(
    ("code", "how", "raised", "failed"),
    [
        ("pass", "came to its end", False, False),
        ("import sys; sys.exit(0)", "called sys.exit(0)", False, False),
        ("import sys; sys.exit()", "called sys.exit(None)", False, False),
        ("import sys; sys.exit('no')", "called sys.exit('no')", False, True),
        (
            "class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute",
            "raised Mute: (it cannot say what)",
            True,
            True,
        ),
        ("import sys; sys.exit('x' * 100)", f"called sys.exit('{'x' * 59}…)", False, True),
        ("1 / 0", "raised ZeroDivisionError: division by zero", True, True),
    ],
)
def test_how_a_script_ended_is_replied(tmp_path, code, how, raised, failed):
    assert run(Echo, tmp_path, code) == (how, raised, failed)


def test_a_script_prints_and_writes_into_its_own_folder(tmp_path):
    run(Echo, tmp_path, "import os; os.write(1, b'hello'); open('made.txt', 'w').write('x')")
    assert (tmp_path / "run" / "stdout.txt").read_text() == "hello"
    assert not (tmp_path / "made.txt").exists()


def test_an_error_of_bygones_is_raised_in_the_parent(tmp_path):
    with pytest.raises(RecipeError, match="refused"):
        run(Refusing, tmp_path, "pass")


def test_a_script_without_an_optimizer_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ScriptError, match="without a step of any torch optimizer"):
        run(Early, tmp_path, "pass")


def test_a_killed_process_is_an_error_with_the_given_sentence(tmp_path):
    with pytest.raises(ScriptError, match="gone"):
        run(Echo, tmp_path, "import os; os.kill(os.getpid(), 9)", killed="gone")


def test_steps_are_counted_again_by_the_optimizer_that_closes_a_round(tmp_path):
    (tmp_path / "script.py").write_text("pass")
    script, counted_by = run_by_slowest(
        lambda script, parent: Counting(script, tmp_path, 0, tmp_path / "run", parent),
        Script("script.py"),
    )
    assert (script.clock, counted_by) == (2, 2)


def test_why_a_process_cannot_be_forked_reaches_its_parent():
    error = pickle.loads(pickle.dumps(CannotFork("train.py", "it runs threads")))
    assert str(error) == "train.py cannot be forked, since it runs threads."
    assert error.why == "it runs threads"


def test_indices_are_overridden_for_the_loader_of_one_dataset_until_the_queue_is_empty():
    mine: Any = SimpleNamespace(_dataset=object())
    other: Any = SimpleNamespace(_dataset=object())
    override = IndexOverride()
    assert override.apply(mine, [0]) == [0]
    override.begin(mine, QueuedIndices([[7], [8]]))
    assert [override.apply(one, [0]) for one in (mine, other, mine, mine)] == [[7], [0], [8], [0]]


def test_an_error_of_our_own_after_the_script_has_ended_comes_back_with_its_place(tmp_path):
    with pytest.raises(Unexpected, match="KeyError: 'nothing there'") as caught:
        run(Broken, tmp_path, "")
    assert "in finish" in caught.value.place


def test_threads_that_only_redraw_a_bar_are_not_started():
    class Derived(_RefreshThread):
        """As Lightning's."""

    bar: Any = SimpleNamespace(_lock=threading.RLock(), refresh=lambda: None)
    with without_redrawing():
        redrawing, other = Derived(bar, 9), threading.Thread(target=lambda: None)
        redrawing.stop()  # it ends at once where it is started
        for thread in (redrawing, other):
            thread.start()
            thread.join()
    assert (redrawing.ident, other.ident is not None) == (None, True)
