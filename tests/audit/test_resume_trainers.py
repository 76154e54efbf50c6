"""Whether checkpoints hold everything: an ordinary loop's, transformers.Trainer's, Lightning's.

What is expected was found without bygones, by training these scripts uninterrupted and resumed in processes
of their own and comparing batches, generators, losses, learning rates, moments and weights step by step.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.helpers.commands import ask, start_server, stop_server

pytestmark = pytest.mark.xdist_group("trainers")  # what they share is made once

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples" / "resuming"
SEED = ("--seed", "{seed}")


class Found(NamedTuple):
    """The verdicts of a check by source, and everything else that it says."""

    verdicts: dict[str, str]
    whole: dict[str, Any]
    ran: str

    def why(self, source: str) -> str:
        return next(v["why"] for v in self.whole["verdicts"] if v["source"] == source)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    process = start_server(
        "bygones.audit.resume_check",
        "sklearn.datasets",
        "transformers.trainer",
        "transformers.models.gpt2.modeling_gpt2",
        "lightning.pytorch",
    )
    yield process
    stop_server(process)


@pytest.fixture
def check(server, tmp_path):
    """Checks an example with some of its text replaced, and its arguments."""

    def run(name: str, *arguments: str, resume: str, at: int, horizon: int, **text: str) -> Found:
        script = (EXAMPLES / name).read_text()
        for old, new in text.items():
            assert old in script
            script = script.replace(old, new, 1)
        (tmp_path / name).write_text(script)
        where = ("--at", at, "--horizon", horizon, "--resume", resume, "--json", "--")
        said = ask(
            server, tmp_path, "check-resume", "--seeds", "0", *where, name, *SEED, *arguments
        )
        assert said.out, said.err
        found = json.loads(said.out)
        assert said.code == (1 if found["failed"] else 0)
        assert found["floor"] == 0.0
        verdicts = {v["source"]: v["outcome"] for v in found["verdicts"]}
        return Found(verdicts, found, said.err)

    return run


def failed(found: Found) -> set[str]:
    return {source for source, outcome in found.verdicts.items() if outcome == "FAIL"}


def passed(found: Found) -> set[str]:
    """The sources that passed."""
    return {source for source, outcome in found.verdicts.items() if outcome == "PASS"}


# ------------------------------------------------------------------ an ordinary loop


def test_an_ordinary_checkpoint_loses_the_schedule_and_the_generator(check):
    found = check("plain.py", resume="--resume last.pt", at=39, horizon=4)
    assert found.whole["interrupted_at"] == 39
    assert found.whole["start"] == 20  # where its last checkpoint is: the end of the first epoch
    assert failed(found) == {"scheduler", "streams/torch"}
    assert {"weights", "moments", "batchnorm"} <= passed(found)
    assert "follows from streams/torch" in found.why("order")
    losses = {v["source"]: v["first_loss"] for v in found.whole["verdicts"]}
    # The learning rate is right until the next epoch's end, and so is the loss one step longer.
    assert (losses["scheduler"], losses["streams/torch"]) == (41, 20)


def test_with_both_saved_it_goes_on_to_the_bit(check):
    found = check(
        "plain.py",
        resume="--resume last.pt",
        at=40,  # the last step of an epoch: its checkpoint is written before the process is ended
        horizon=22,
        **{
            '"epoch": epoch}': '"epoch": epoch, "schedule": scheduler.state_dict(), '
            '"stream": torch.get_rng_state()}',
            "    first_epoch = saved": '    scheduler.load_state_dict(saved["schedule"])\n'
            '    torch.set_rng_state(saved["stream"])\n'
            "    first_epoch = saved",
        },
    )
    assert found.whole["start"] == 40
    assert not failed(found)
    assert {"weights", "moments", "batchnorm", "scheduler", "streams/torch"} <= passed(found)
    assert found.verdicts["order"] == "PASS"  # another epoch was shuffled alike


@pytest.mark.long
@pytest.mark.parametrize(("at", "start"), [(50, 45), (65, 60)], ids=["inside", "at the edge"])
def test_a_place_inside_an_epoch_can_be_kept(check, at, start):
    found = check("mended.py", resume="--resume last.pt", at=at, horizon=20)
    assert found.whole["start"] == start
    assert not failed(found)
    assert {"weights", "moments", "batchnorm", "scheduler", "streams/torch"} <= passed(found)


@pytest.mark.long
def test_the_generator_alone_does_not_keep_the_place(check):
    """The page on mending says what is then seen: an epoch that is begun again draws another shuffle."""
    found = check(
        "mended.py",
        resume="--resume last.pt",
        at=50,
        horizon=10,
        **{'torch.set_rng_state(saved["epoch_began"])': 'torch.set_rng_state(saved["generator"])'},
    )
    assert "order" in failed(found)


def test_a_resumed_run_that_skips_batches_for_ever_is_ended(server, tmp_path):
    script = (EXAMPLES / "mended.py").read_text()
    begins = "for epoch in range(first_epoch"
    endless = f"while options.resume:\n    for batch in loader:\n        pass\n\n{begins}"
    (tmp_path / "mended.py").write_text(script.replace(begins, endless, 1))
    asked = (
        "check-resume",
        "--seeds",
        "0",
        "--at",
        20,
        "--resume",
        "--resume last.pt",
        "--",
        "mended.py",
        *SEED,
    )
    said = ask(server, tmp_path, *asked, "--epochs", 2)
    assert said.code == 8
    assert "asked for 120 batches (does it skip them for ever?) without a training step" in said.err


# ------------------------------------------------------------------ transformers.Trainer

HUGGING_FACE = ("--examples", "64", "--epochs", "3", "--save-steps", "3")  # 4 steps an epoch


@pytest.fixture
def hugging_face():
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")


def test_transformers_checkpoint_holds_everything(check, hugging_face):
    found = check("huggingface_trainer.py", *HUGGING_FACE, resume="--resume", at=6, horizon=4)
    assert (
        "each arm from the start" not in found.ran
    )  # its progress bar keeps no thread while watched
    assert found.whole["start"] == 6
    assert not failed(found)
    assert passed(found) == {"weights", "moments", "scheduler", "streams/torch", "order"}


@pytest.mark.long
def test_transformers_told_to_keep_less_loses_the_optimizer_and_the_position(check, hugging_face):
    found = check(
        "huggingface_trainer.py",
        *HUGGING_FACE,
        "--accumulate",
        "2",
        resume="--resume",
        at=3,
        horizon=2,
        **{
            "use_cpu=True": "use_cpu=True, save_only_model=True, ignore_data_skip=True",
            "import torch\n": "import torch, tqdm\ntqdm.tqdm.monitor_interval = 0\n",  # no thread
        },
    )
    assert "each arm from the start" not in found.ran
    assert found.whole["crossed"]["batches a step"] == 2
    assert failed(found) == {"moments", "scheduler", "streams/torch", "order"}
    assert passed(found) == {"weights"}


# ------------------------------------------------------------------ lightning.Trainer

NO_BAR = (
    "logger=False, enable_progress_bar=False"  # its thread would keep the process from being forked
)


def test_lightnings_checkpoint_loses_the_generator_and_inside_an_epoch_the_position(check):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    found = check(
        "lightning_trainer.py", resume="--resume", at=20, horizon=8, **{"logger=False": NO_BAR}
    )
    assert failed(found) == {"streams/torch", "order"}
    assert "it is shown the epoch of step 0 from its beginning" in found.why("order")
    assert passed(found) == {"weights", "moments", "scheduler", "batchnorm"}


@pytest.mark.long
def test_at_an_epochs_edge_it_loses_the_generator_alone(check):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    found = check(
        "lightning_trainer.py",
        "--save-steps",
        "16",
        resume="--resume",
        at=16,
        horizon=17,
        **{"logger=False": NO_BAR},
    )
    assert found.whole["start"] == 16
    assert failed(found) == {"streams/torch"}
    assert "follows from streams/torch" in found.why("order")
    # The loop's own counts are memory too: new ones would make another run.
    counts = {"_data_fetcher.fetched", "epoch_loop.batch_progress.current.ready"}
    own = {f"trainer.fit_loop.{name}" for name in counts}
    assert passed(found) == {"weights", "moments", "scheduler", "batchnorm", *own}
