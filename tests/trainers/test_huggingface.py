"""The door for transformers.Trainer: a tiny GPT-2 on random tokens, nothing fetched from anywhere."""

import contextlib
import gc
import os
import pickle
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import bygones
from bygones import (
    Arm,
    BygonesError,
    FolderStore,
    Nudge,
    Reseed,
    Reset,
    Scale,
    Sham,
    SwapWindows,
    Transplant,
    Treatment,
    Window,
)
from bygones.core.digest import same_bits
from bygones.core.errors import DesignError, ForkError, ProbeError, StoreError, UnknownName
from bygones.core.importing import load_object
from bygones.store.outcomes import read_manifest, read_outcomes
from bygones.trainers.checkpoint_files import load_checkpoint
from bygones.training.interventions import Hold
from bygones.training.nested_state import flatten

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")
door = pytest.importorskip("bygones.trainers.huggingface")
Boundaries, measure, rewrite_checkpoint = door.Boundaries, door.measure, door.rewrite_checkpoint

transformers.logging.set_verbosity_error()
ROOT = Path(__file__).parents[2]
TOKENS = torch.randint(0, 32, (64, 12), generator=torch.Generator().manual_seed(0))
EXAMPLES = [{"input_ids": row, "labels": row} for row in TOKENS]
NEXT = TOKENS[:8, 1:]


def make_model(dropout=0.1):
    config = transformers.GPT2Config(
        vocab_size=32,
        n_positions=12,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLMLoss",
    )
    return transformers.GPT2LMHeadModel(config)


def make_trainer(seed, folder="output", *, model=None, callbacks=None, **settings):
    transformers.set_seed(seed)
    settings = {
        "max_steps": 12,
        "save_strategy": "no",
        "gradient_accumulation_steps": 2,
        **settings,
    }
    return transformers.Trainer(
        model=model or make_model(),
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            seed=seed,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            **settings,
        ),
        train_dataset=EXAMPLES,
        callbacks=[*(callbacks or [])],
    )


def next_token(model):
    return model(TOKENS[:8]).logits[:, :-1]


def weights(trainer):
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


def trained(*callbacks):
    """The last weights of a run with these callbacks."""
    trainer = make_trainer(0, callbacks=callbacks)
    trainer.train()
    return weights(trainer)


def at(step, source, intervention, **settings):
    return Treatment(source, intervention, Window(step, step + 1), **settings)


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """accelerate collects garbage before each training; what is loaded by now need not be looked at."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    """A Trainer makes its output folder, whether it writes into it or not."""
    with contextlib.chdir(tmp_path_factory.mktemp("output")):
        yield


@pytest.fixture(scope="module")
def untouched():
    """The run that nobody looked at: its last weights."""
    return trained()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two runs' checkpoints at step 6, in the middle of an epoch, and how the first goes on from there."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"seed-{seed}")
        make_trainer(seed, folder, save_strategy="steps", save_steps=6).train()
        folders.append(folder / "checkpoint-6")
    return [*folders, resumed(folders[0])]


def resumed(checkpoint, callbacks=()):
    trainer = make_trainer(0, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return weights(trainer)


# ------------------------------------------------------------------ the callback


def test_observing_leaves_no_trace_and_sees_each_boundary(untouched):
    seen = Boundaries(observe_at=(0, 3, 12), probe=next_token)
    trainer = make_trainer(0, callbacks=[seen])
    trainer.train()
    assert torch.equal(weights(trainer), untouched)
    assert list(seen.observed) == [0, 3, 12]
    assert seen.observed[3].shape == (8 * 11, 32)
    trainer.model.eval()
    with torch.no_grad():
        np.testing.assert_array_equal(seen.observed[12], next_token(trainer.model).reshape(-1, 32))


def test_a_probe_may_draw_and_leaves_no_trace(untouched):
    def draws(model):
        torch.rand(3)
        np.random.rand(3)
        random.random()
        model.train()
        return next_token(model)

    assert torch.equal(trained(Boundaries(observe_at=(2, 5), probe=draws)), untouched)


def test_the_last_boundary_comes_before_the_trainer_puts_other_weights_in():
    class BestModel(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, model, **_):
            if state.global_step == state.max_steps:
                torch.nn.init.zeros_(model.transformer.wte.weight)

    seen = Boundaries(observe_at=(12,), probe=next_token)
    treated = Boundaries([at(12, "weights", Sham())], observe_at=(12,), probe=next_token)
    trained(BestModel(), seen, treated)
    plain = make_trainer(0)
    plain.train()
    plain.model.eval()
    with torch.no_grad():
        expected = next_token(plain.model).reshape(-1, 32)
    np.testing.assert_array_equal(seen.observed[12], expected)
    np.testing.assert_array_equal(treated.observed[12], expected)


def test_the_sources_of_a_run_are_listed():
    seen = Boundaries(observe_at=(1,), probe=next_token)
    trainer = make_trainer(0, max_steps=1, callbacks=[seen])
    trainer.train()
    rows = {row["name"]: row for row in seen.sources}
    assert list(rows) == ["weights", "moments", "scheduler", "gradients", "streams"]
    named = [name for name, _ in trainer.model.named_parameters()]
    assert rows["weights"]["leaves"] == len(named)
    assert rows["moments"]["leaves"] == 3 * len(
        named
    )  # of the true AdamW: step, exp_avg, exp_avg_sq
    assert "half-life 692.8" in rows["moments"]["lifetime"]


def test_a_sham_changes_nothing_and_a_reset_is_what_torch_does(untouched):
    everything = [at(5, name, Sham()) for name in ("weights", "moments", "scheduler", "streams")]
    assert torch.equal(trained(Boundaries(everything)), untouched)

    class ByHand(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **_):
            if state.global_step == 5:
                optimizer.optimizer.state.clear()

    reset = trained(Boundaries([at(5, "moments", Reset())]))
    assert torch.equal(reset, trained(ByHand()))
    assert not torch.equal(reset, untouched)


def test_an_optimizer_that_fills_its_own_state_is_reset_to_it():
    class Sums(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **_):
            if state.global_step == 2:
                self.left = sum(s["sum"].abs().sum() for s in optimizer.optimizer.state.values())

    sums = Sums()
    reset = Boundaries([at(2, "moments", Reset())])
    make_trainer(0, max_steps=3, optim="adagrad", callbacks=[reset, sums]).train()
    assert sums.left == 0.0


def test_a_scheduler_that_is_reset_begins_its_phase_again():
    rates = []

    class Rates(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            rates.append(optimizer.param_groups[0]["lr"])

    treated = Boundaries([at(4, "scheduler", Reset())])
    make_trainer(0, max_steps=8, warmup_steps=2, callbacks=[treated, Rates()]).train()
    assert rates[:4] == rates[4:]
    assert rates[0] == 0.0
    assert rates[1] > 0.0


@pytest.mark.parametrize(
    ("treatment", "error", "words"),
    [
        (at(2, "momments", Reset()), UnknownName, "did you mean 'moments'"),
        (at(2, "weights", Reset()), DesignError, "'weights' cannot be reset"),
        (at(2, "moments", SwapWindows()), DesignError, "swap-windows"),
        (at(40, "moments", Reset()), DesignError, "ends after 12 optimizer steps"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_trained(treatment, error, words):
    trainer = make_trainer(0, callbacks=[Boundaries([treatment])])
    before = weights(trainer)
    with pytest.raises(error, match=words):
        trainer.train()
    assert torch.equal(weights(trainer), before)


def test_what_cannot_be_asked_of_one_run_is_refused_at_once():
    with pytest.raises(DesignError, match=r"needs another run"):
        Boundaries([at(2, "moments", Transplant())])
    with pytest.raises(DesignError, match=r"no probe"):
        Boundaries(observe_at=(3,))
    with pytest.raises(DesignError, match=r"no steps to observe at"):
        Boundaries(probe=next_token)
    with pytest.raises(DesignError, match=r"once its trainer has begun"):
        _ = Boundaries().sources


def test_a_boundary_that_never_came_is_named():
    class Early(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 3

    asked = Boundaries(observe_at=(2, 5, 7), probe=next_token)
    with pytest.raises(
        DesignError, match=r"ended after 3 optimizer steps, so the boundaries at steps 5, 7"
    ):
        make_trainer(0, callbacks=[asked, Early()]).train()
    assert list(asked.observed) == [2]


def test_a_probe_that_changes_the_run_is_refused():
    def meddles(model):
        next(model.parameters()).mul_(2)
        return next_token(model)

    with pytest.raises(
        ProbeError, match=r"changed the run that it observed at step 1 .first in weights/"
    ):
        make_trainer(0, callbacks=[Boundaries(observe_at=(1,), probe=meddles)]).train()
    with pytest.raises(ProbeError, match=r"two dimensions"):
        make_trainer(0, callbacks=[Boundaries(observe_at=(1,), probe=lambda m: 3.0)]).train()


# ------------------------------------------------------------------ the study

ARMS = [
    Arm("reset moments", at(4, "moments", Reset())),
    Arm("re-draw dropout", at(4, "streams", Reseed())),
    Arm("transplant moments", at(4, "moments", Transplant())),
]


@pytest.mark.usefixtures("page_only")
def test_a_study_is_a_study_like_any_other(tmp_path):
    store = FolderStore(tmp_path / "store")
    drawn = torch.get_rng_state()
    outcomes = measure(
        make_trainer, ARMS, 4, (0, 1, 4), range(2), next_token, NEXT, "tiny", store=store
    )
    assert torch.equal(torch.get_rng_state(), drawn)
    assert outcomes.logits.shape == (2, 8, 3, 88, 32)
    assert outcomes.train_loss.shape == (2, 8, 8)
    assert np.isfinite(outcomes.train_loss).all()
    control, sham = outcomes.sel(arm="control"), outcomes.sel(arm="sham")
    np.testing.assert_array_equal(control.logits, sham.logits)
    np.testing.assert_array_equal(control.train_loss, sham.train_loss)
    assert outcomes.attrs["certificate"]["passed"]
    assert outcomes.attrs["num_steps"] == {"naive": 2 * (8 * 8 + 4), "shared": 2 * (8 * 8 + 4)}
    effects = {(e.arm, e.horizon): e for e in bygones.all_effects(outcomes)}
    for arm in ARMS:
        assert effects[arm.name, 0].estimate.value == 0.0  # the weights have not moved yet
        assert effects[arm.name, 4].estimate.value > 0.0
        floor = effects[arm.name, 4].floor
        assert floor is not None
        assert floor.value == 0.0
    assert "tiny" in bygones.write_report(outcomes, tmp_path / "report").read_text()
    again = read_outcomes(store, read_manifest(store))
    assert again.equals(outcomes)


def test_arms_stop_after_the_last_horizon():
    ended = []

    class Ended(transformers.TrainerCallback):
        def on_train_end(self, args, state, control, **_):
            ended.append(state.global_step)

    measure(
        lambda seed: make_trainer(seed, callbacks=[Ended()]), _arms(1), 1, (2,), [0], next_token
    )
    assert ended == [3, 3, 3, 3]


def test_the_studys_arm_is_what_the_callback_does():
    outcomes = measure(make_trainer, ARMS[:1], 4, (8,), [0], next_token)
    seen = Boundaries([at(4, "moments", Reset())], observe_at=(12,), probe=next_token)
    make_trainer(0, callbacks=[seen]).train()
    np.testing.assert_array_equal(
        outcomes.logits.sel(seed=0, arm="reset moments", step=12), seen.observed[12]
    )


def test_a_fork_before_the_first_step_and_a_horizon_of_none():
    outcomes = measure(make_trainer, _arms(0), 0, (0,), [0, 1], next_token)
    assert outcomes.train_loss.shape == (2, 4, 0)
    (found,) = bygones.all_effects(outcomes)
    assert found.estimate.value > 0.0


def test_runs_that_do_not_share_their_past_are_refused():
    kept = make_model()
    with pytest.raises(ForkError, match=r"'sham' of seed 0 does not share .*weights/.*at step 2"):
        measure(lambda seed: make_trainer(seed, model=kept), _arms(2), 2, (1,), [0], next_token)


def test_seeds_that_do_not_reach_the_run_are_refused():
    def same(seed):
        trainer = make_trainer(0)
        trainer.args.seed = seed
        trainer.args.data_seed = 0
        return trainer

    def forgot(seed):
        return make_trainer(0)

    with pytest.raises(DesignError, match=r"make_trainer\(1\) returned a Trainer with args.seed=0"):
        measure(forgot, _arms(1), 1, (1,), [1], next_token)
    with pytest.raises(ForkError, match=r"seeds 0 and 1 train the same run"):
        measure(same, _arms(0), 0, (1,), [0, 1], next_token)
    with pytest.raises(DesignError, match=r"must return a transformers.Trainer; it returned a int"):
        measure(lambda seed: 3, _arms(1), 1, (1,), [1], next_token)


def test_a_study_that_means_nothing_is_refused():
    with pytest.raises(UnknownName, match=r"did you mean 'moments'"):
        measure(make_trainer, [Arm("x", at(1, "moment", Reset()))], 1, (1,), [0], next_token)
    reset = at(1, "moments", Reset(), leaves="*/exp_avgg")
    with pytest.raises(DesignError, match=r"no leaf of moments matches '\*/exp_avgg'"):
        measure(make_trainer, [Arm("x", reset)], 1, (1,), [0], next_token)
    with pytest.raises(DesignError, match=r"88 rows, and there are 3 labels"):
        measure(make_trainer, _arms(1), 1, (1,), [0], next_token, [1, 2, 3])
    with pytest.raises(DesignError, match=r"'streams' cannot be transplanted"):
        measure(make_trainer, [Arm("x", at(1, "streams", Transplant()))], 1, (1,), [0], next_token)


def _arms(step):
    return [Arm("nudge", at(step, "weights", Nudge(1e-3)))]


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("source", ["weights", "moments", "scheduler", "streams"])
def test_a_sham_rewrite_resumes_as_the_untouched_checkpoint(saved, tmp_path, source):
    first, _, goes_on = saved
    out = rewrite_checkpoint(first, tmp_path / "sham", source, Sham())
    assert {p.name for p in out.iterdir()} == {p.name for p in first.iterdir()}
    assert torch.equal(resumed(out), goes_on)


def test_a_resume_goes_on_as_the_run_itself(saved, untouched):
    assert torch.equal(saved[2], untouched)


def test_the_callback_works_in_a_resumed_run(saved):
    late = Boundaries(observe_at=(6, 8), probe=next_token)
    whole = Boundaries(observe_at=(6, 8), probe=next_token)
    trained(whole)
    assert torch.equal(resumed(saved[0], callbacks=[late]), saved[2])
    for step in (6, 8):
        np.testing.assert_array_equal(late.observed[step], whole.observed[step])
    with pytest.raises(DesignError, match=r"begins at step 6 .*the boundary at step 2 never comes"):
        resumed(saved[0], callbacks=[Boundaries([at(2, "moments", Reset())])])


def test_resuming_without_moments_is_the_callbacks_reset_arm(saved, tmp_path, untouched):
    out = rewrite_checkpoint(saved[0], tmp_path / "reset", "moments", Reset())
    arm = trained(Boundaries([at(6, "moments", Reset())]))
    assert torch.equal(resumed(out), arm)
    assert not torch.equal(arm, untouched)


@pytest.mark.parametrize(
    ("source", "intervention"),
    [("moments", Scale(0.5)), ("weights", Scale(0.9)), ("streams", Reseed())],
)
def test_other_rewrites_are_the_callbacks_arms_too(saved, tmp_path, source, intervention):
    out = rewrite_checkpoint(saved[0], tmp_path / "rewritten", source, intervention)
    arm = trained(Boundaries([at(6, source, intervention)]))
    assert torch.equal(resumed(out), arm)
    assert not torch.equal(arm, saved[2])


def test_only_the_files_of_the_source_are_written(saved, tmp_path):
    out = rewrite_checkpoint(saved[0], tmp_path / "scaled", "moments", Scale(0.5))
    changed = {p.name for p in out.iterdir() if p.read_bytes() != (saved[0] / p.name).read_bytes()}
    assert changed == {"optimizer.pt"}


def test_a_source_is_transplanted_from_another_checkpoint(saved, tmp_path):
    first, second, goes_on = saved
    later = first.parent / "checkpoint-12"  # of the same run: another seed's schedule is the same
    for source, file, donor in [
        ("moments", "optimizer.pt", second),
        ("streams", "rng_state.pth", second),
        ("scheduler", "scheduler.pt", later),
    ]:
        out = rewrite_checkpoint(first, tmp_path / source, source, Transplant(), donor=donor)
        one, other = (transplanted(folder / file) for folder in (out, donor))
        assert same_bits(one, other)
        assert not torch.equal(resumed(out), goes_on)
    out = rewrite_checkpoint(first, tmp_path / "weights", "weights", Transplant(), donor=second)
    assert (out / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_the_streams_of_a_device_that_is_not_here_are_kept_and_not_drawn_again(saved, tmp_path):
    folders = []
    for number, checkpoint in enumerate(saved[:2]):
        folder = Path(shutil.copytree(checkpoint, tmp_path / f"gpu-{number}"))
        held = {
            **load_checkpoint(folder / "rng_state.pth", ()),
            "cuda": torch.full((16,), number).byte(),
        }
        torch.save(held, folder / "rng_state.pth")
        folders.append(folder)
    one, other = folders
    with pytest.raises(DesignError, match=r"the streams of cuda .* cannot be drawn again"):
        rewrite_checkpoint(one, tmp_path / "drawn", "streams", Reseed())
    sham = rewrite_checkpoint(one, tmp_path / "sham", "streams", Sham())
    given = rewrite_checkpoint(one, tmp_path / "given", "streams", Transplant(), donor=other)
    for out, like in [(sham, one), (given, other)]:
        assert same_bits(transplanted(out / "rng_state.pth"), transplanted(like / "rng_state.pth"))


def transplanted(file):
    held = load_checkpoint(file, ())
    return list(flatten(held.get("state", held), "here").values())


@pytest.mark.parametrize(
    ("source", "intervention", "error", "words"),
    [
        ("momments", Reset(), UnknownName, "did you mean 'moments'"),
        ("batchnorm", Reset(), UnknownName, "no memory source in checkpoint-6 called 'batchnorm'"),
        ("weights", Reset(), DesignError, "'weights' cannot be reset"),
        ("scheduler", Reset(), DesignError, "does not say with which learning rate"),
        ("moments", Hold(), DesignError, "a checkpoint is one boundary"),
        ("moments", Transplant(), DesignError, "needs donor="),
    ],
)
def test_surgery_that_means_nothing_is_refused(saved, tmp_path, source, intervention, error, words):
    with pytest.raises(error, match=words):
        rewrite_checkpoint(saved[0], tmp_path / "out", source, intervention)
    assert not list(tmp_path.iterdir())


def test_a_donor_of_another_model_is_refused(saved, tmp_path):
    wide = transformers.GPT2Config(vocab_size=32, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    wide.bos_token_id = wide.eos_token_id = 0
    other = make_trainer(
        0,
        tmp_path / "other",
        model=transformers.GPT2LMHeadModel(wide),
        max_steps=1,
        save_strategy="steps",
        save_steps=1,
    )
    other.train()
    for source in ("weights", "moments"):
        with pytest.raises(DesignError, match=r"must be of the same model"):
            rewrite_checkpoint(
                saved[0], tmp_path / "o", source, Transplant(), tmp_path / "other/checkpoint-1"
            )
    with pytest.raises(DesignError, match=r"leave donor out"):
        rewrite_checkpoint(saved[0], tmp_path / "o", "moments", Reset(), donor=saved[1])


def test_damaged_and_foreign_checkpoints_are_refused(saved, tmp_path):
    def broken(name, file, content):
        folder = Path(shutil.copytree(saved[0], tmp_path / name))
        (folder / file).write_bytes(content)
        return folder

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    torch.save({"state": {}, "param_groups": [], "x": Evil()}, tmp_path / "evil.pt")
    whole = (saved[0] / "optimizer.pt").read_bytes()
    cases = [
        (tmp_path / "nowhere", "there is no checkpoint at"),
        (tmp_path, "is no checkpoint of transformers.Trainer: it has no trainer_state.json"),
        (
            broken("a", "optimizer.pt", whole[: len(whole) // 2]),
            "optimizer.pt .*cannot be read|damaged",
        ),
        (
            broken("b", "optimizer.pt", (tmp_path / "evil.pt").read_bytes()),
            "runs no code from a checkpoint",
        ),
        (broken("c", "optimizer.pt", pickle.dumps({"a": Evil()})), "runs no code|cannot be read"),
        (broken("d", "model.safetensors", b"not tensors"), "model.safetensors cannot be read"),
        (broken("e", "trainer_state.json", b"{"), "trainer_state.json cannot be read"),
        (
            broken("f", "optimizer.pt", (saved[0] / "scheduler.pt").read_bytes()),
            "it lacks state, param",
        ),
    ]
    for place, words in cases:
        with pytest.raises(StoreError, match=words) as raised:
            rewrite_checkpoint(place, tmp_path / "out", "moments", Reset())
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(saved, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BygonesError, match=r"exists already"):
        rewrite_checkpoint(saved[0], tmp_path / "out", "moments", Reset())


# ------------------------------------------------------------------ what the docs say


def test_the_docs_program_can_be_studied():
    program = load_object(f"{ROOT / 'docs/examples/huggingface_trainer.py'}:make_trainer")
    probe = load_object(f"{ROOT / 'docs/examples/huggingface_trainer.py'}:probe")
    labels = probe.__globals__["held_out"][:, 1:]
    outcomes = measure(program, _arms(2), 2, (1,), [0], probe, labels)
    assert outcomes.attrs["certificate"]["passed"]


def test_the_docs_snippets_are_in_the_programs():
    page = (ROOT / "docs/trainers.md").read_text()
    marked = re.findall(r"<!-- (docs/examples/\S+) -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(marked) == 2
    for program, snippet in marked:
        assert snippet in (ROOT / program).read_text()
