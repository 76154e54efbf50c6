"""The door for lightning.Trainer: a small network with BatchNorm on handwritten digits."""

import logging
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bygones
from bygones import (
    Arm,
    Kick,
    Nudge,
    Permute,
    Replace,
    Reseed,
    Reset,
    Scale,
    Sham,
    Transplant,
    Treatment,
    Window,
)
from bygones.core.digest import same_bits
from bygones.core.errors import DesignError, ForkError, ProbeError, StoreError, UnknownName
from bygones.core.importing import load_object

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
L = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
door = pytest.importorskip("bygones.trainers.lightning")
Boundaries, measure, rewrite_checkpoint = door.Boundaries, door.measure, door.rewrite_checkpoint

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@cache
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


class Network(L.LightningModule):
    def __init__(self, width=24, dropout=0.0, optimizer: type = torch.optim.AdamW):
        super().__init__()
        self.kind = optimizer
        self.net = nn.Sequential(
            nn.Linear(64, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, 10),
        )

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, index) -> Any:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = self.kind(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class TwoOptimizers(Network):
    """One that steps its optimizers itself, twice a batch."""

    automatic_optimization = False

    def training_step(self, batch, index):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        first, *_, last = self.net
        return [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (first, last)]


def loader(shuffle=True):
    images, labels = digits()
    return DataLoader(TensorDataset(images[:320], labels[:320]), batch_size=32, shuffle=shuffle)


def make(seed, *callbacks, module=None, shuffle=True, dropout=0.1, **settings):
    L.seed_everything(seed, verbose=False)
    module = module or Network(dropout=dropout)
    trainer = L.Trainer(**{**QUIET, "max_epochs": 4, "callbacks": list(callbacks), **settings})
    return trainer, module, loader(shuffle)


def trained(*callbacks, **settings):
    """The module at the end of a run with these callbacks."""
    trainer, module, data = make(0, *callbacks, **settings)
    trainer.fit(module, data)
    return module


def held_out(module):
    return module(digits()[0][320:])


LABELS = digits()[1][320:]


def ending(module):
    """Weights and buffers."""
    return torch.cat([t.detach().double().reshape(-1) for t in module.state_dict().values()])


def at(step, source, intervention, **settings):
    return Treatment(source, intervention, Window(step, step + 1), **settings)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """seed_everything writes into the environment."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))


# ------------------------------------------------------------------ the callback


@pytest.mark.parametrize("accumulate", [1, 3])
def test_observing_leaves_no_trace_and_sees_each_boundary(accumulate):
    seen = Boundaries(observe_at=(0, 5, 7), probe=held_out)
    plain = trained(accumulate_grad_batches=accumulate)
    watched = trained(seen, accumulate_grad_batches=accumulate)
    assert torch.equal(ending(watched), ending(plain))
    assert list(seen.observed) == [0, 5, 7]
    assert seen.observed[0].shape == (len(LABELS), 10)


def test_a_boundary_is_between_two_updates():
    class Count(L.Callback):
        steps = 0

        def on_before_optimizer_step(self, *_):
            self.steps += 1

    count, seen_at = Count(), []

    def looks(module):
        seen_at.append((count.steps, module.training))
        return held_out(module)

    seen = Boundaries(observe_at=(0, 2, 3, 16), probe=looks)
    module = trained(count, seen, accumulate_grad_batches=3)  # 4 updates an epoch of 10 batches
    assert seen_at == [(0, False), (2, False), (3, False), (16, False)]
    module.eval()
    with torch.no_grad():
        np.testing.assert_array_equal(seen.observed[16], held_out(module))


def test_a_treatment_acts_once_however_many_batches_are_accumulated():
    class ByHand(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 2 and index == 6:
                with torch.no_grad():
                    for weight in module.net.parameters():
                        if weight.ndim:
                            weight.mul_(0.5)

    halved = Boundaries([at(2, "weights", Scale(0.5))])
    one = trained(halved, accumulate_grad_batches=3)
    assert torch.equal(ending(one), ending(trained(ByHand(), accumulate_grad_batches=3)))


def test_the_sources_of_a_run_are_listed():
    seen = Boundaries(observe_at=(1,), probe=held_out)
    trained(seen, max_steps=2)
    rows = {row["name"]: row for row in seen.sources}
    assert list(rows) == ["weights", "moments", "scheduler", "gradients", "batchnorm", "streams"]
    assert rows["moments"]["leaves"] == 3 * 6
    assert "half-life 6.579" in rows["batchnorm"]["lifetime"]


def test_the_averages_of_a_callback_are_a_source():
    from lightning.pytorch.callbacks import EMAWeightAveraging

    average: Any = EMAWeightAveraging(decay=0.9)
    taken = {}

    class Take(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 5:
                taken["average"] = [p.clone() for p in average._average_model.module.parameters()]
                taken["weights"] = [p.clone() for p in module.parameters()]

    trained(average, Boundaries([at(5, "averages", Reset())]), Take(), max_steps=6)
    assert all(map(torch.equal, taken["average"], taken["weights"]))


def test_a_sham_changes_nothing_and_a_reset_is_what_torch_does():
    class ByHand(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 5:
                trainer.optimizers[0].state.clear()

    names = ("weights", "moments", "scheduler", "batchnorm", "streams", "gradients")
    plain = trained()
    assert torch.equal(
        ending(trained(Boundaries([at(5, n, Sham()) for n in names]))), ending(plain)
    )
    reset = trained(Boundaries([at(5, "moments", Reset())]))
    assert torch.equal(ending(reset), ending(trained(ByHand())))
    assert not torch.equal(ending(reset), ending(plain))


def test_with_two_optimizers_only_batches_have_boundaries():
    seen = Boundaries([at(4, "moments", Reset())], observe_at=(0, 4, 10), probe=held_out)
    trained(seen, module=TwoOptimizers(), max_epochs=1)
    assert list(seen.observed) == [0, 4, 10]
    assert {row["name"] for row in seen.sources} >= {"weights", "moments"}
    with pytest.raises(DesignError, match=r"the boundary at step 5 was passed over: .*at step 6"):
        trained(Boundaries(observe_at=(5,), probe=held_out), module=TwoOptimizers())


@pytest.mark.parametrize(
    ("treatment", "error", "words"),
    [
        (at(2, "batchnrom", Reset()), UnknownName, "did you mean 'batchnorm'"),
        (at(2, "weights", Reset()), DesignError, "'weights' cannot be reset"),
        (at(2, "scheduler", Permute()), DesignError, "'permute' cannot be applied to 'scheduler'"),
        (at(41, "moments", Reset()), DesignError, "ends after 40 optimizer steps"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_trained(treatment, error, words):
    trainer, module, data = make(0, Boundaries([treatment]))
    before = ending(module)
    with pytest.raises(error, match=words):
        trainer.fit(module, data)
    assert torch.equal(ending(module), before)


def test_a_boundary_that_never_came_is_named():
    class Early(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 3

    asked = Boundaries(observe_at=(2, 7), probe=held_out)
    with pytest.raises(
        DesignError, match=r"ended after 3 optimizer steps, so the boundary at step 7"
    ):
        trained(asked, Early())
    assert list(asked.observed) == [2]


def test_a_probe_that_changes_the_run_is_refused():
    def in_training_mode(module):
        module.train()
        return held_out(module)

    with pytest.raises(
        ProbeError, match=r"changed the run that it observed at step 1 .first in batchnorm/"
    ):
        trained(Boundaries(observe_at=(1,), probe=in_training_mode))
    with pytest.raises(ProbeError, match=r"the probe raised ZeroDivisionError at step 1"):
        trained(Boundaries(observe_at=(1,), probe=lambda module: 1 / 0))


@pytest.mark.filterwarnings("ignore")  # the older name of the same library has warnings of its own
def test_the_older_name_of_the_library_works_too():
    older = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    class Older(older.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    def run(*callbacks):
        older.seed_everything(0, verbose=False)
        trainer = older.Trainer(max_steps=6, callbacks=list(callbacks), **QUIET)
        module = Older()
        trainer.fit(module, loader())
        return module

    seen = Boundaries([at(3, "moments", Sham())], observe_at=(6,), probe=held_out)
    assert torch.equal(ending(run(seen)), ending(run()))
    reset = Boundaries([at(3, "moments", Reset())])
    assert not torch.equal(ending(run(reset)), ending(run()))


# ------------------------------------------------------------------ the study


def make_trainer(seed):
    return make(seed)


ARMS = [
    Arm("reset moments", at(10, "moments", Reset())),
    Arm("reset batchnorm", at(10, "batchnorm", Reset())),
    Arm("re-draw", at(10, "streams", Reseed())),
    Arm("transplant", at(10, "weights", Transplant())),
]


@pytest.mark.usefixtures("page_only")
def test_a_study_is_a_study_like_any_other(tmp_path):
    drawn, said = torch.get_rng_state(), os.environ["PL_GLOBAL_SEED"]
    outcomes = measure(make_trainer, ARMS, 10, (0, 1, 15), range(2), held_out, LABELS, "digits")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert os.environ["PL_GLOBAL_SEED"] == said
    assert outcomes.logits.shape == (2, 10, 3, len(LABELS), 10)
    assert np.isfinite(outcomes.train_loss).all()
    control, sham = outcomes.sel(arm="control"), outcomes.sel(arm="sham")
    np.testing.assert_array_equal(control.logits, sham.logits)
    np.testing.assert_array_equal(control.train_loss, sham.train_loss)
    assert outcomes.attrs["certificate"]["passed"]
    assert outcomes.attrs["num_steps"] == {
        "naive": 2 * (10 * 25 + 10),
        "shared": 2 * (10 * 25 + 10),
    }
    effects = {(e.arm, e.horizon): e for e in bygones.all_effects(outcomes)}
    for arm in ARMS:
        assert effects[arm.name, 15].estimate.value > 0.0
        floor = effects[arm.name, 15].floor
        assert floor is not None
        assert floor.value == 0.0
    # The statistics do not feed back into training: the losses stay equal to the bit.
    reset = outcomes.sel(arm="reset batchnorm")
    np.testing.assert_array_equal(control.train_loss, reset.train_loss)
    assert "digits" in bygones.write_report(outcomes, tmp_path / "report").read_text()


def test_the_studys_arm_is_what_the_callback_does():
    outcomes = measure(make_trainer, ARMS[:1], 10, (15,), [0], held_out)
    seen = Boundaries([at(10, "moments", Reset())], observe_at=(25,), probe=held_out)
    trained(seen)
    np.testing.assert_array_equal(
        outcomes.logits.sel(seed=0, arm="reset moments", step=25), seen.observed[25]
    )


def test_the_losses_are_those_that_were_descended_on():
    told = []

    class Told(L.Callback):
        def on_before_backward(self, trainer, module, loss):
            told.append(float(loss.detach()))

    def make_accumulating(seed):
        return make(seed, Told(), accumulate_grad_batches=3)

    outcomes = measure(make_accumulating, _arms(1), 1, (2,), [0], held_out)
    expected = [sum(told[start : start + 3]) for start in (0, 3, 6)]
    np.testing.assert_allclose(outcomes.train_loss.sel(seed=0, arm="control"), expected, rtol=1e-6)


def test_an_arm_that_diverges_counts_from_there_on():
    outcomes = measure(
        make_trainer,
        [Arm("kick", at(2, "weights", Kick({"net.4.bias": np.inf})))],
        2,
        (0, 3),
        [0],
        held_out,
    )
    assert outcomes.diverged_at.sel(seed=0, arm="kick") == 2
    assert np.isnan(outcomes.logits.sel(seed=0, arm="kick", step=5)).all()
    assert np.isnan(outcomes.diverged_at.sel(seed=0, arm="control"))


def test_what_is_observed_after_a_loss_that_was_not_finite_is_left_out():
    class Overflows(Network):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            last: Any = self.net[4]
            return loss + torch.inf if last.bias.min() > 50 else loss

    kick = Arm("kick", at(2, "weights", Kick({"net.4.bias": 100.0})))  # softmax does not see it
    outcomes = measure(
        lambda seed: make(seed, module=Overflows()), [kick], 2, (0, 3), [0], held_out
    )
    seen = outcomes.logits.sel(seed=0, arm="kick")
    assert np.isfinite(seen.sel(step=2)).all()
    assert np.isnan(seen.sel(step=5)).all()
    assert outcomes.diverged_at.sel(seed=0, arm="kick") == 2


def test_runs_that_do_not_share_their_past_are_refused():
    module = Network()
    with pytest.raises(ForkError, match=r"'sham' of seed 0 does not share .*weights/.*at step 2"):
        measure(lambda seed: make(seed, module=module), _arms(2), 2, (1,), [0], held_out)


def test_seeds_that_do_not_reach_the_run_are_refused():
    with pytest.raises(ForkError, match=r"seeds 0 and 1 train the same run"):
        measure(lambda seed: make(7), _arms(1), 1, (1,), [0, 1], held_out)


def test_a_study_that_means_nothing_is_refused():
    with pytest.raises(UnknownName, match=r"did you mean 'moments'"):
        measure(make_trainer, [Arm("x", at(1, "moment", Reset()))], 1, (1,), [0], held_out)
    with pytest.raises(DesignError, match=r"must return \(trainer, module\).*it returned Trainer"):
        measure(lambda seed: make(seed)[0], _arms(1), 1, (1,), [0], held_out)
    with pytest.raises(DesignError, match=r"labels belong to logits"):
        measure(make_trainer, _arms(1), 1, (1,), [0], held_out, LABELS, kind="values")


def _arms(step):
    return [Arm("nudge", at(step, "weights", Nudge(1e-3)))]


# ------------------------------------------------------------------ checkpoints

# Lightning saves no random state, so the runs here draw nothing: no dropout, no shuffling.


def fitted(*callbacks, ckpt_path=None, **settings):
    trainer, module, data = make(0, *callbacks, shuffle=False, dropout=0.0, **settings)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


def keeping(folder):
    checkpoints = L.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    return {"callbacks": [checkpoints], "enable_checkpointing": True}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints after two epochs (step 20) of two seeds; and how the first goes on from there."""
    files = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"seed-{seed}")
        trainer, module, data = make(seed, dropout=0.0, shuffle=False, **keeping(folder))
        trainer.fit(module, data)
        files.append(folder / "epoch=1.ckpt")
    return [*files, fitted(ckpt_path=files[0])]


@pytest.mark.parametrize("source", ["weights", "moments", "scheduler", "batchnorm"])
def test_a_sham_rewrite_resumes_as_the_untouched_checkpoint(saved, tmp_path, source):
    out = rewrite_checkpoint(saved[0], tmp_path / "sham.ckpt", source, Sham())
    assert torch.equal(ending(fitted(ckpt_path=out)), ending(saved[2]))


@pytest.mark.parametrize(
    ("source", "intervention"),
    [
        ("moments", Reset()),
        ("moments", Scale(0.5)),
        ("weights", Scale(0.9)),
        ("batchnorm", Reset()),
        ("scheduler", Replace({"optimizer/[0/lr": 0.1})),
    ],
)
def test_a_rewritten_checkpoint_resumes_as_the_callbacks_arm(saved, tmp_path, source, intervention):
    out = rewrite_checkpoint(saved[0], tmp_path / "out.ckpt", source, intervention)
    arm = ending(fitted(Boundaries([at(20, source, intervention)])))
    assert not torch.equal(arm, ending(saved[2]))
    if source == "scheduler":  # the callback puts the setting back when its window is over
        arm = ending(fitted(Boundaries([Treatment(source, intervention, Window(20, 40))])))
        assert not torch.equal(ending(fitted(ckpt_path=out)), ending(saved[2]))
    else:
        assert torch.equal(ending(fitted(ckpt_path=out)), arm)


def test_a_reset_optimizer_that_fills_its_own_state_is_as_new(tmp_path):
    def adagrad(*callbacks, **settings):
        L.seed_everything(0, verbose=False)
        return fitted(*callbacks, module=Network(optimizer=torch.optim.Adagrad), **settings)

    adagrad(**keeping(tmp_path))
    out = rewrite_checkpoint(tmp_path / "epoch=1.ckpt", tmp_path / "o.ckpt", "moments", Reset())
    (saved,) = torch.load(out, weights_only=True)["optimizer_states"]
    assert len(saved["state"]) == 6
    assert all(s["step"] == 0 and (s["sum"] == 0).all() for s in saved["state"].values())
    arm = adagrad(Boundaries([at(20, "moments", Reset())]))
    assert torch.equal(ending(adagrad(ckpt_path=out)), ending(arm))


def test_a_source_is_transplanted_from_another_checkpoint(saved, tmp_path):
    first, second, goes_on = saved
    other = torch.load(second, weights_only=True)
    for source in ("weights", "batchnorm", "moments"):
        out = rewrite_checkpoint(
            first, tmp_path / f"{source}.ckpt", source, Transplant(), donor=second
        )
        held = torch.load(out, weights_only=True)
        if source == "moments":
            assert same_bits(
                held["optimizer_states"][0]["state"][0]["exp_avg"],
                other["optimizer_states"][0]["state"][0]["exp_avg"],
            )
        statistic = torch.equal(
            held["state_dict"]["net.1.running_mean"], other["state_dict"]["net.1.running_mean"]
        )
        weight = torch.equal(
            held["state_dict"]["net.0.weight"], other["state_dict"]["net.0.weight"]
        )
        assert (statistic, weight) == (source == "batchnorm", source == "weights")
        assert not torch.equal(ending(fitted(ckpt_path=out)), ending(goes_on))


@pytest.mark.parametrize(
    ("source", "intervention", "words"),
    [
        ("momments", Reset(), "did you mean 'moments'"),
        ("streams", Reseed(), "no memory source in epoch=1.ckpt called 'streams'"),
        ("weights", Reset(), "'weights' cannot be reset"),
        ("weights", Transplant(), "needs donor="),
    ],
)
def test_surgery_that_means_nothing_is_refused(saved, tmp_path, source, intervention, words):
    with pytest.raises(DesignError, match=words):
        rewrite_checkpoint(saved[0], tmp_path / "out.ckpt", source, intervention)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_checkpoints_are_refused(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    held = torch.load(saved[0], weights_only=True)
    torch.save({**held, "hyper_parameters": {"x": Evil()}}, tmp_path / "evil.ckpt")
    torch.save(held["state_dict"], tmp_path / "weights.ckpt")
    (tmp_path / "half.ckpt").write_bytes(saved[0].read_bytes()[:3000])
    (tmp_path / "text.ckpt").write_text("hello")
    cases = {
        "evil.ckpt": "runs no code from a checkpoint .*open",
        "weights.ckpt": "it lacks global_step, state_dict",
        "half.ckpt": "half.ckpt",
        "text.ckpt": "text.ckpt",
        "none.ckpt": "there is no checkpoint at",
    }
    for name, words in cases.items():
        with pytest.raises(StoreError, match=words) as raised:
            rewrite_checkpoint(tmp_path / name, tmp_path / "out.ckpt", "moments", Reset())
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "out.ckpt").exists()


def test_nothing_is_overwritten(saved, tmp_path):
    shutil.copy(saved[0], tmp_path / "out.ckpt")
    with pytest.raises(DesignError, match=r"exists already"):
        rewrite_checkpoint(saved[0], tmp_path / "out.ckpt", "moments", Reset())


def test_the_docs_program_can_be_studied():
    file = Path(__file__).parents[2] / "docs/examples/lightning_trainer.py"
    program, probe = load_object(f"{file}:make_trainer"), load_object(f"{file}:probe")
    outcomes = measure(program, _arms(2), 2, (1,), [0], probe, digits()[1][1200:])
    assert outcomes.attrs["certificate"]["passed"]
