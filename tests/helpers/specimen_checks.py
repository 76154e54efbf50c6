"""Each specimen with what it loses, how to check it, and the source that the check has to name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "specimens"
OBSERVERS = SCRIPTS / "observers"


@dataclass(frozen=True)
class Setting:
    """How a script is checked: where it is interrupted, for how long it is compared, its arguments.

    `horizon`: to the end of the run, and what it writes too, if None.
    """

    script: str
    at: int
    horizon: int | None = 4
    arguments: tuple[str, ...] = ()
    again: int | None = None  # where the resumed run is interrupted in its turn
    saves_right: bool = False  # the fault is the resumed run's alone

    def command(self, fault: str = "") -> list[Any]:
        """The arguments of `bygones`."""
        with_fault = ["--fault", fault] if fault else []
        resume = "--resume"
        if fault and self.saves_right:
            resume, with_fault = f"--resume --fault '{fault}'", []
        asked: list[Any] = ["check-resume", "--seeds", 0, "--at", self.at]
        if self.horizon is not None:
            asked += ["--horizon", self.horizon]
        if self.again is not None:
            asked += ["--again", self.again]
        asked += [f"--resume={resume}", "--json", "--", SCRIPTS / self.script, "--seed", "{seed}"]
        return [*asked, *self.arguments, *with_fault]


@dataclass(frozen=True)
class Specimen:
    """One fault. `named`: the source whose loss it is; `silent`: no training loss ever shows it."""

    setting: Setting
    fault: str
    named: str
    silent: bool = False

    @property
    def id(self) -> str:
        return f"{Path(self.setting.script).stem}: {self.fault}"


HARNESS = Setting("harness.py", 17, arguments=("--steps", "24"), saves_right=True)
# Saved in the middle of an accumulation window, two batches after boundary 4.
IN_A_WINDOW = Setting(
    "harness.py",
    6,
    arguments=("--accumulate", "4", "--save-at", "18", "--steps", "48"),
    saves_right=True,
)
SAMPLER = Setting("sampler_epoch.py", 7)
FETCHED = Setting("fetched_before.py", 11)
EXHAUSTED = Setting("exhausted_sampler.py", 8)
BUFFER = Setting("shuffle_buffer.py", 7)
GLOBAL = Setting("global_stream.py", 8)
PRIVATE = Setting("private_generator.py", 8)
SCALER = Setting("loss_scaler.py", 8)
COSINE = Setting("schedule_rebuilt.py", 9)
SEQUENCE = Setting("schedule_rebuilt.py", 9, arguments=("--sequence",))
OPTIMIZER = Setting("optimizer_state.py", 9)
AVERAGE = Setting("averaged_weights.py", 8)
SWA = Setting("weight_averaging.py", 13)
HIDDEN = Setting("hidden_buffer.py", 8)
CLOSURE = Setting("closure_counter.py", 8)
QUEUE = Setting("rebound_queue.py", 8)
TENSORS = Setting("shuffled_tensors.py", 11)
SECOND = Setting("second_resume.py", 5, 8, again=10)

LATE = Setting("late_memory.py", 12, 12)
BY_HAND = Setting("batches_by_hand.py", 17, 12)
BY_HAND_IN_A_WINDOW = Setting("batches_by_hand.py", 5, 6, ("--accumulate", "4", "--save-at", "18"))
AHEAD = Setting("drawn_ahead.py", 12, 8)
EPOCHS = Setting("epoch_behind.py", 33, 12)
ASIDE = Setting("kept_aside.py", 9, None)
COLLECTED = Setting("collected_memory.py", 17, 12)

SPECIMENS = (
    Specimen(HARNESS, "optimizer dropped", "moments"),
    Specimen(HARNESS, "step counter zeroed", "moments"),
    Specimen(HARNESS, "moments rounded", "moments"),
    Specimen(HARNESS, "moments swapped", "moments"),
    Specimen(HARNESS, "scheduler dropped", "scheduler"),
    Specimen(HARNESS, "scheduler late", "scheduler"),
    Specimen(HARNESS, "torch stream lost", "streams/torch"),
    Specimen(HARNESS, "numpy stream lost", "streams/numpy"),
    Specimen(HARNESS, "python stream lost", "streams/python"),
    Specimen(HARNESS, "generator lost", "order"),
    Specimen(HARNESS, "position lost", "order"),
    Specimen(HARNESS, "first epoch replayed", "order"),
    Specimen(HARNESS, "batchnorm reset", "batchnorm", silent=True),
    Specimen(HARNESS, "teacher copied", "teacher.model"),
    Specimen(HARNESS, "updates reset", "teacher.updates"),
    Specimen(HARNESS, "average as student", "weights"),
    Specimen(HARNESS, "queue redrawn", "queue"),
    Specimen(HARNESS, "pointer zeroed", "pointer"),
    Specimen(HARNESS, "validation after load", "streams/torch"),
    Specimen(IN_A_WINDOW, "gradients lost", "gradients"),
    Specimen(SAMPLER, "epoch not set", "order"),
    Specimen(SAMPLER, "position in updates", "order"),
    Specimen(FETCHED, "fetched before", "streams/torch"),
    Specimen(FETCHED, "iterator made after", "streams/torch"),
    Specimen(EXHAUSTED, "saved inside the loop", "sampler.epoch"),
    Specimen(BUFFER, "buffer lost", "data.buffer"),
    Specimen(GLOBAL, "stream lost", "streams/torch"),
    Specimen(GLOBAL, "seeded after loading", "streams/torch"),
    Specimen(PRIVATE, "generator made anew", "streams/mixup.rng"),
    Specimen(SCALER, "scaler lost", "scaler"),
    Specimen(COSINE, "one step off", "scheduler"),
    Specimen(SEQUENCE, "milestones ignored", "scheduler"),
    Specimen(OPTIMIZER, "other order", "moments"),
    Specimen(OPTIMIZER, "dummy step", "moments"),
    Specimen(OPTIMIZER, "saved in half", "moments"),
    Specimen(AVERAGE, "only the average saved", "weights"),
    Specimen(AVERAGE, "average left in the model", "weights"),
    Specimen(AVERAGE, "average made before loading", "ema", silent=True),
    Specimen(SWA, "averaged parameters only", "averages", silent=True),
    Specimen(HIDDEN, "not persistent", "buffers"),
    Specimen(CLOSURE, "count lost", "factor closing over calls"),
    Specimen(QUEUE, "queue lost", "queue"),
    Specimen(TENSORS, "place lost", "place"),
    Specimen(TENSORS, "permutation drawn again", "order_"),
    Specimen(LATE, "hidden state lost", "hidden"),
    Specimen(LATE, "average lost", "average.kept", silent=True),
    Specimen(LATE, "list of averages lost", "shadow", silent=True),
    Specimen(LATE, "past items lost", "past"),
    Specimen(LATE, "usual norm lost", "usual.size"),
    Specimen(BY_HAND, "position lost", "trainer.position"),
    Specimen(BY_HAND, "count of averages lost", "trainer.num_averaged"),
    Specimen(BY_HAND, "permutation drawn again", "trainer.permutation"),
    Specimen(BY_HAND, "moments and position lost", "moments"),
    Specimen(AHEAD, "stream lost", "streams/torch"),
    Specimen(EPOCHS, "saved before the epoch ends", "scheduler"),
    Specimen(BY_HAND_IN_A_WINDOW, "gradients lost", "gradients"),
    Specimen(ASIDE, "average on disk begun anew", "written files", silent=True),
    Specimen(ASIDE, "average in a generator begun anew", "written files", silent=True),
    Specimen(ASIDE, "best weights lost", "best.score", silent=True),
    Specimen(COLLECTED, "memory lost", "memory"),
    Specimen(COLLECTED, "place in the world lost", "place"),
    Specimen(COLLECTED, "average made anew", "average", silent=True),
    Specimen(SECOND, "counted from here", "step"),
    Specimen(SECOND, "place not kept up", "second resume"),
)
# Scripts that lose nothing, with names that lead astray.
CLEAN = (
    Setting("several_of_a_kind.py", 5, 12),
    Setting("several_of_a_kind.py", 5, 12, ("--object",)),
    Setting("several_of_a_kind.py", 5, 12, ("--first-model-kept",)),
)
SETTINGS = (*dict.fromkeys(specimen.setting for specimen in SPECIMENS), *CLEAN)

# Observers: a script, its fault, the function that has to be named, and what it leaves behind.
WATCHED = (
    ("validation.py", "loader draws", "evaluate()", "streams/torch"),
    ("validation.py", "generator seeded", "evaluate()", "streams/shuffling"),
    ("validation.py", "buffer changed", "evaluate()", "batchnorm"),
    ("saving.py", "saving draws", "save()", "streams/torch"),
)


def watching(script: str, fault: str = "") -> list[Any]:
    """The arguments of `bygones` that look for observers in a script."""
    with_fault = ["--fault", fault] if fault else []
    asked = ["observers", "--until", 24, "--horizon", 10, "--json", "--", OBSERVERS / script]
    return [*asked, "--seed", "{seed}", *with_fault]
