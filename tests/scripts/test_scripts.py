"""Unmodified scripts, from the command line: studied, proved, and refused in a sentence."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.commands import ALONE_HERE, Said

from bygones.core.extras import is_installed
from bygones.core.study_facts import facts_of
from bygones.store import FolderStore
from bygones.store.outcomes import read_manifest, read_outcomes

HERE = Path(__file__).parents[1]
EXAMPLES = HERE.parent / "examples" / "scripts"
AWKWARD = HERE / "awkward_scripts"
Bygones = Callable[..., Said]  # (*arguments)


@pytest.fixture
def bygones(commands, tmp_path) -> Bygones:
    """Runs a command in a folder that holds the awkward scripts."""
    shutil.copytree(AWKWARD, tmp_path, dirs_exist_ok=True)
    return lambda *arguments: commands(tmp_path, *arguments)


def outcomes_of(folder: Path) -> Any:
    store = FolderStore(folder / "bygones-store")
    return read_outcomes(store, read_manifest(store))


SMALL = ("--fork-at", "10", "--horizons", "0,1,6", "--seeds", "0-1", "--workers", "1")

BOTH = ("--arm", "reset moments=reset:moments", "--arm", "swap=swap-windows:order@10:14")
RESET = ("--arm", "reset moments=reset:moments")

# Each example with what makes it short, and the memory that its habit is about.
SCRIPTS = {
    "bare_loop.py": (["1"], {"moments", "batchnorm", "streams"}),
    "loader_workers.py": (["--seed", "{seed}", "--epochs", "1"], {"moments", "order"}),
    "accumulate_ema.py": (
        ["--seed", "{seed}", "--epochs", "1"],
        {"scheduler", "ema.shadow", "order"},
    ),
    "gan.py": (["--seed", "{seed}", "--epochs", "2"], {"moments", "batchnorm"}),
    "contrastive_queue.py": (
        ["--seed", "{seed}", "--epochs", "1"],
        {"buffers", "encoder_k", "model.pointer", "order"},
    ),
    "char_lm.py": (["--seed", "{seed}", "--epochs", "1"], {"scheduler", "streams"}),
    "torchs_ema.py": (["--seed", "{seed}", "--epochs", "2"], {"averages", "batchnorm", "order"}),
}


# ------------------------------------------------------------------ the way through


STUDIED = ("accumulate_ema.py", "torchs_ema.py")  # the others with `make test-long`


@pytest.mark.parametrize(
    "name",
    [n if n in STUDIED else pytest.param(n, marks=pytest.mark.long) for n in SCRIPTS],
)
def test_an_example_is_studied_and_its_sham_is_exactly_zero(bygones, tmp_path, name):
    arguments, expected = SCRIPTS[name]
    said = bygones("script", *SMALL, *RESET, "--json", "--", EXAMPLES / name, *arguments)
    assert said.code == 0, said.err
    assert "forked at the boundary of step 10" in said.err
    found = json.loads(said.out)
    assert all(effect["floor"]["value"] == 0.0 for effect in found["effects"])
    assert all(effect["floor"]["high"] == 0.0 for effect in found["effects"])
    outcomes = outcomes_of(tmp_path)
    assert outcomes.attrs["certificate"]["passed"] is True
    assert expected <= {source["name"] for source in outcomes.attrs["sources"]}
    observed = outcomes["logits" if "logits" in outcomes else "values"]
    assert np.isfinite(observed).all()
    moved = observed.sel(arm="reset moments", step=16) != observed.sel(arm="control", step=16)
    assert bool(moved.any())
    assert bool((observed.sel(arm="sham") == observed.sel(arm="control")).all())
    seeds = observed.sel(arm="control")
    assert not bool((seeds.isel(seed=0) == seeds.isel(seed=1)).all())


@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "name", "arguments", "expected"),
    [
        ("stable_baselines3", "sb3_replay.py", ["--steps", "300"], {"model", "streams"}),
        ("lightly", "lightly_memory_bank.py", ["--epochs", "1"], {"criterion", "order"}),
    ],
)
def test_the_memory_of_a_library_is_studied_too(
    bygones, tmp_path, package, name, arguments, expected
):
    """A replay buffer and a memory bank that a script only names; no extra of bygones has the packages."""
    if not is_installed(package):
        pytest.skip(f"{package} is not installed")
    script = (EXAMPLES / name, "--seed", "{seed}", *arguments)
    proof = bygones("audit", "transparency", "--at", "10", "--", *script)
    assert proof.code == 0, proof.err
    memory = next(iter(expected - {"streams", "order"}))
    arm = ("--arm", f"empty=reset:{memory}")
    said = bygones("run", *SMALL, *RESET, *arm, "--json", "--", *script)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert all(
        effect["floor"]["value"] == effect["floor"]["high"] == 0.0 for effect in found["effects"]
    )
    outcomes = outcomes_of(tmp_path)
    assert expected <= {source["name"] for source in outcomes.attrs["sources"]}
    observed = outcomes["logits" if "logits" in outcomes else "values"].sel(step=16)
    for moved in ("reset moments", "empty"):
        assert bool((observed.sel(arm=moved) != observed.sel(arm="control")).any())


ALSO_LONG = (
    "bare_loop.py", "gan.py", "contrastive_queue.py", "loader_workers.py", "accumulate_ema.py",
    "torchs_ema.py",
)  # fmt: skip
TWINS = [pytest.param(n, marks=pytest.mark.long) if n in ALSO_LONG else n for n in SCRIPTS]


@pytest.mark.parametrize("name", TWINS)
def test_the_twin_of_an_example_is_the_untouched_script(bygones, tmp_path_factory, name):
    arguments, _ = SCRIPTS[name]
    ask = ("twin", "--at", "10", "--seed", "3", "--json", "--", EXAMPLES / name, *arguments)
    if name not in ("loader_workers.py", "accumulate_ema.py"):
        proof = bygones(*ask)
        assert proof.code == 0, proof.err
        return
    # Once with workers, once with files: against a process that bygones had nothing to do with.
    command = [sys.executable, EXAMPLES / name, *(a.format(seed=3) for a in arguments)]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen(command, cwd=elsewhere, env=ALONE_HERE, stdout=subprocess.PIPE) as plain:
        proof = bygones(*ask)
        printed, _ = plain.communicate()
    assert proof.code == 0, proof.err
    assert plain.returncode == 0
    assert b"weights" in printed
    assert hashlib.sha256(printed).hexdigest() == json.loads(proof.out)["printed"]


def test_a_study_goes_on_where_it_stopped_and_grows(bygones, tmp_path):
    ask = ("script", "--fork-at", "10", "--horizons", "0,4", "--workers", "1", "--arm")
    first = bygones(*ask, "a=reset:moments", "--seeds", "0-1", "--json", "--", "prints_partial.py")
    assert first.code == 0, first.err
    again = bygones(*ask, "a=reset:moments", "--seeds", "0-1", "--json", "--", "prints_partial.py")
    assert "everything is stored already" in again.err
    assert again.out == first.out
    more = bygones(
        *ask, "a=reset:moments", "--arm", "b=scale(0.5):moments", "--seeds", "0-2", "--json", "--",
        "prints_partial.py",
    )  # fmt: skip
    assert more.code == 0, more.err
    outcomes = outcomes_of(tmp_path)
    assert list(outcomes.seed.values) == [0, 1, 2]
    assert {"a", "b", "null of b"} <= set(outcomes.arm.values)


def test_without_arms_it_asks_what_anybody_would_ask_first(bygones, tmp_path):
    arguments, _ = SCRIPTS["accumulate_ema.py"]
    said = bygones("script", *SMALL, "--", EXAMPLES / "accumulate_ema.py", *arguments)
    assert said.code == 0, said.err
    arms = {arm["name"] for arm in outcomes_of(tmp_path).attrs["arms"] if arm["role"] == "treated"}
    assert arms == {
        "reset moments", "reset ema.shadow", "swap two 3-step windows", "re-draw the order",
        "re-draw torch's stream", "nudge weights 1e-3",
    }  # fmt: skip


def test_forking_and_replaying_give_the_same_bits(bygones, tmp_path):
    forked = bygones("script", *SMALL, *BOTH, "--store", "forked", "--", "two_loaders.py")
    replayed = bygones(
        "script", *SMALL, *BOTH, "--replay", "--store", "replayed", "--", "two_loaders.py"
    )
    assert forked.code == replayed.code == 0, forked.err + replayed.err
    assert "run from the start" in replayed.err
    stores = [FolderStore(tmp_path / name) for name in ("forked", "replayed")]
    one, other = (read_outcomes(store, read_manifest(store)) for store in stores)
    assert set(one.arm.values) == set(other.arm.values)
    np.testing.assert_array_equal(one.logits.values, other.logits.values)
    np.testing.assert_array_equal(one.train_loss.values, other.train_loss.values)


def test_a_script_that_keeps_a_thread_is_replayed(bygones, tmp_path):
    said = bygones("script", *SMALL, *RESET, "--", "thread.py")
    assert said.code == 0, said.err
    assert "because forking was not possible: it runs threads" in said.err
    outcomes = outcomes_of(tmp_path)
    assert outcomes.attrs["certificate"]["passed"] is True
    assert "run from the start" in outcomes.attrs["way"]


def test_swapped_windows_show_the_controls_batches_in_another_order(bygones, tmp_path):
    arms = ("--arm", "swap=swap-windows:order@10:16", "--arm", "again=reseed:order")
    said = bygones("script", *SMALL, "--horizons", "0,30", *arms, "--", "shows_order.py")
    assert said.code == 0, said.err
    shown = {arm: shown_by(tmp_path, arm) for arm in ("control", "sham", "swap", "again")}
    control, swap = shown["control"], shown["swap"]
    assert shown["sham"] == control
    assert swap[:10] == control[:10]
    assert swap[10:16] == control[13:16] + control[10:13]
    assert swap[16:] == control[16:]
    assert shown["again"][:10] == control[:10]
    assert shown["again"][10:] != control[10:]
    epoch = shown["again"][
        20:40
    ]  # the next whole epoch is another permutation of the same examples
    assert sorted(i for batch in epoch for i in batch) == list(range(40))
    assert epoch != control[20:40]


def shown_by(folder: Path, arm: str) -> list[list[int]]:
    text = (folder / "bygones-store" / "output" / "seed-0" / arm / "stdout.txt").read_text()
    return [
        json.loads(line.split(" ", 1)[1]) for line in text.splitlines() if line.startswith("shown")
    ]


def test_every_stream_is_carried_and_can_be_drawn_again_alone(bygones, tmp_path):
    streams = ("python", "numpy", "torch", "rng", "own")
    arms = [x for name in streams for x in ("--arm", f"{name}=reseed:streams[{name}/*]")]
    said = bygones("script", *SMALL, *arms, "--", "draws_everywhere.py")
    assert said.code == 0, said.err
    outcomes = outcomes_of(tmp_path)
    assert outcomes.attrs["certificate"]["passed"] is True
    end = outcomes.logits.sel(step=16)
    assert bool((end.sel(arm="sham") == end.sel(arm="control")).all())
    for name in streams:
        assert not bool((end.sel(arm=name) == end.sel(arm="control")).any())


def test_an_arm_that_raises_counts_as_diverged_and_hurts_no_other(bygones, tmp_path):
    arms = ("--arm", "wild=scale(1e30):weights", "--arm", "mild=reset:moments")
    said = bygones("script", *SMALL, *arms, "--", "asserts_finite.py")
    assert said.code == 0, said.err
    outcomes = outcomes_of(tmp_path)
    assert not np.isnan(outcomes.diverged_at.sel(arm="wild")).any()
    assert np.isnan(outcomes.diverged_at.sel(arm="mild")).all()
    assert any("'wild' of seed 0 raised" in finding for finding in outcomes.attrs["findings"])


def test_donors_probes_and_environment(bygones, tmp_path):
    (tmp_path / "probe.py").write_text("def probe(model):\n    return model.weight.detach()\n")
    arms = ("--arm", "give=transplant:weights", "--arm", "hold=hold:moments@10:13")
    said = bygones(
        "script", *SMALL, *arms, "--probe", "probe.py:probe", "--seed-env", "MY_SEED", "--",
        "seeded_by_environment.py",
    )  # fmt: skip
    assert said.code == 0, said.err
    outcomes = outcomes_of(tmp_path)
    assert "values" in outcomes
    given = outcomes["values"].sel(arm="give", step=10)
    assert not bool((given == outcomes["values"].sel(arm="control", step=10)).any())


@pytest.mark.parametrize(
    "how", [(), pytest.param(("--replay",), marks=pytest.mark.long)], ids=["forked", "replayed"]
)
def test_the_null_of_a_window_is_displaced_as_far_as_its_treated_arm(bygones, tmp_path, how):
    arms = (
        "--arm",
        "hold=hold:moments@10:15",
        "--arm",
        "low=scale(0.5):moments@10:15+permute:weights@12",
    )
    script = (EXAMPLES / "accumulate_ema.py", "--seed", "{seed}", "--epochs", "1")
    said = bygones("script", *SMALL, *arms, *how, "--", *script)
    assert said.code == 0, said.err
    nulls = [arm for arm in facts_of(outcomes_of(tmp_path)).arms if arm.role == "null"]
    assert [null.null_of for null in nulls] == ["hold", "low"]
    for null in nulls:
        assert null.null_ratio == pytest.approx((1.0, 1.0), abs=1e-3)
    assert not list((tmp_path / "bygones-store" / "output").glob("*/references"))


def test_sources_lists_what_a_script_carries(bygones):
    said = bygones("sources", "--at", "12", "--json", "--", "counts_forwards.py")
    assert said.code == 0, said.err
    rows = {row["name"]: row for row in json.loads(said.out)["sources"]}
    assert rows["model.calls"]["visibility"] == "process"
    assert rows["weights"]["visibility"] == "state_dict"
    assert all(len(row["digest"]) == 64 for row in rows.values())
    text = bygones("sources", "--at", "12", "--", "thread.py").out
    assert "cannot be forked, since it runs threads" in text


@pytest.mark.parametrize("momentum", [True, False])
def test_sources_name_attributes_and_what_was_none_and_the_lifetime_as_measured(bygones, momentum):
    """The same inventory as that of a resume audit, and a momentum that lasts as long as it says, or not."""
    given = ["--momentum"] if momentum else []
    said = bygones("sources", "--at", "12", "--json", "--", "carries_between_steps.py", *given)
    assert said.code == 0, said.err
    rows = {row["name"]: row for row in json.loads(said.out)["sources"]}
    attributes = {"trainer.position", "trainer.usual", "trainer.recent"}
    assert attributes | {"hidden", "seen", "total"} <= rows.keys()
    assert not {"loss", "trainer"} & rows.keys()
    said_of_moments = rows["moments"]["lifetime"]
    if momentum:
        assert said_of_moments.startswith("e-fold 9.491 steps")
        assert "measured" not in said_of_moments
    else:
        assert said_of_moments.startswith(
            "exactly 1 step as measured; its settings say e-fold 9.49"
        )


def test_what_was_none_can_be_treated(bygones, tmp_path):
    arms = ("--arm", "forget=reset:hidden", "--arm", "rewind=reset:trainer.position")
    said = bygones("script", *SMALL, *arms, "--", "carries_between_steps.py", "--momentum")
    assert said.code == 0, said.err
    values = outcomes_of(tmp_path)["values"].isel(step=-1)
    for name in ("forget", "rewind"):
        assert float(abs(values.sel(arm=name) - values.sel(arm="control")).max()) > 0


def test_a_marked_model_is_what_is_observed(bygones, tmp_path):
    said = bygones("script", *SMALL, *RESET, "--", "marks_itself.py")
    assert said.code == 0, said.err
    assert "marked by bygones.watch" in said.err
    assert outcomes_of(tmp_path).sizes["input"] == 7


def test_every_model_that_is_alive_is_observed_and_one_may_lead(bygones, tmp_path):
    script = (EXAMPLES / "accumulate_ema.py", "--seed", "{seed}", "--epochs", "1")
    ask = ("script", *SMALL, "--verbose", "--arm", "reset ema=reset:ema.shadow", *RESET)
    said = bygones(*ask, "--", *script)
    assert said.code == 0, said.err
    assert "at step 10 does not reach model, which is observed" in said.out
    assert "it changes those of ema.shadow" in said.out
    assert "beside it ema.shadow" in said.err
    outcomes = outcomes_of(tmp_path)
    assert outcomes.attrs["models"] == ["model", "ema.shadow"]
    # A new average equals today's weights, so at horizon 0 its outputs are the trained model's.
    new = outcomes["logits:ema.shadow"].sel(arm="reset ema", step=10).values
    assert new.tobytes() == outcomes["logits"].sel(arm="control", step=10).values.tobytes()
    old = outcomes["logits:ema.shadow"].sel(arm="control", step=10).values
    assert new.tobytes() != old.tobytes()
    led = bygones(*ask, "--observe", "ema.shadow", "--", *script)
    assert "everything is stored already" in led.err
    assert "Resetting ema.shadow at step 10 moved the function by" in led.out
    assert outcomes_of(tmp_path).attrs["models"] == ["ema.shadow", "model"]
    assert "Known: model, ema.shadow" in bygones(*ask, "--observe", "tutor", "--", *script).err


def test_the_scripts_own_files_are_left_alone(bygones, tmp_path):
    (tmp_path / "mine.txt").write_text("before")
    said = bygones("script", *SMALL, *RESET, "--", "writes_relative.py")
    assert said.code == 0, said.err
    assert (tmp_path / "mine.txt").read_text() == "before"
    folder = tmp_path / "bygones-store" / "output" / "seed-0"
    written = {p.parent.parent.name for p in folder.glob("*/files/mine.txt") if not p.is_symlink()}
    assert {"control", "sham", "reset-moments"} <= written


# ------------------------------------------------------------------ one sentence for every error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_optimizer.py"], "without a step of any torch optimizer in this process"),
        (["spawned_training.py"], "training in a process that it starts cannot be followed"),
        (
            ["raises_before.py"],
            "raised ValueError: the fifth batch is broken after 5 optimizer steps",
        ),
        (["exits_early.py"], "called sys.exit(0) after 7 optimizer steps, before step 10"),
        (["exits_by_quit.py"], "called sys.exit('done early') after 7 optimizer steps"),
        (["fixed_seed.py"], "seeds 0 and 1 train the same run"),
        (["no_module.py"], "belong to no torch module"),
        (["writes_fixed_path.py", "/opt/somewhere.txt"], "the script writes this fixed path"),
        (["syntax_error.py.txt"], "is no Python program"),
        (["missing.py"], "there is no script 'missing.py'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_script_that_cannot_be_studied_is_told_so(bygones, arguments, words):
    said = bygones("script", *SMALL, "--", *arguments)
    assert words in said.err
    assert said.code in (2, 8)
    assert_one_sentence(said)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--arm", "a=reset:momments"],
            "no memory source called 'momments'; did you mean 'moments'?",
        ),
        (["--arm", "a=resett:moments"], "no intervention called 'resett'; did you mean 'reset'?"),
        (["--arm", "reset:moments"], "is no arm. Expected NAME=INTERVENTION:SOURCE"),
        (["--arm", "a=scale:moments"], "'scale' needs a number for alpha"),
        (["--arm", "a=scale(x):moments"], "'x' is no number"),
        (["--arm", "a=reset:moments@x"], "'@x' in the arm"),
        (["--arm", "a=reset:moments@5"], "outside the run"),
        (["--arm", "a=reset:weights"], "'weights' cannot be reset"),
        (["--arm", "a=reset:moments[nothing]"], "no leaf of moments matches 'nothing'"),
        (["--horizons", "1,x"], "invalid steps '1,x'"),
        (["--seeds", "3-1"], "the range 3-1 is empty"),
        (["--margin", "accuracy"], "invalid margin 'accuracy'"),
        (
            ["--horizons", "0,500"],
            "came to its end after 60 optimizer steps, before the last horizon",
        ),
        (["--fork-at", "100"], "came to its end after 60 optimizer steps, before step 100"),
        (["--probe", "nothing.py:probe"], "there is no file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_question_that_means_nothing_is_refused(bygones, options, words):
    said = bygones("script", *SMALL, *options, "--", "prints_partial.py")
    assert words in said.err
    assert said.code in (2, 3, 8)
    assert_one_sentence(said)


def assert_one_sentence(said: Said) -> None:
    assert "Traceback" not in said.err
    assert said.err.strip().splitlines()[-1].startswith("bygones: ")
    assert said.out == ""


def test_an_arm_on_the_order_is_planned_where_a_loader_has_workers(commands, tmp_path):
    arm = ("--fork-at", 20, "--horizons", "1", "--seeds", "0", "--arm", "o=reseed:order")
    said = commands(
        tmp_path, "plan", *arm, "--", EXAMPLES / "loader_workers.py", "--seed", "{seed}"
    )
    assert said.code == 0, said.err
    assert "worker processes were emulated" in " ".join(said.out.split())


# ------------------------------------------------------------------ a study as a file


@pytest.mark.long
def test_a_file_that_init_writes_is_studied_and_leads_with_its_metric(bygones, tmp_path):
    shutil.copy(EXAMPLES / "bare_loop.py", tmp_path / "train.py")
    said = bygones("init", "--fork-at", "10", "--", "train.py", "1")
    assert said.code == 0, said.err
    text = (tmp_path / "study.toml").read_text()
    assert '"reset moments" = "reset:moments"' in text
    assert "#   batchnorm" in text
    assert "exists already" in bygones("init", "--", "train.py", "1").err
    (tmp_path / "study.toml").write_text(text.replace("# metric", "metric").split("[arms]")[0])
    said = bygones("run", "study.toml", *SMALL[2:], *RESET)
    assert said.code == 0, said.err
    assert "Jensen–Shannon" in said.out
    assert facts_of(outcomes_of(tmp_path)).headline == "js"
    assert (
        "no distance called 'tw'" in bygones("run", "study.toml", *SMALL[2:], "--metric", "tw").err
    )
    said = bygones("run", "study.toml", *SMALL[2:], "--metric", "rms")
    assert "rms is a distance of values" in said.err
