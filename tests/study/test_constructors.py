"""What cannot be meant is refused where it is given: at the constructor, with what was expected and found."""

# pyright: reportArgumentType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import classifier, plain, small

from bygones import (
    Arm,
    Curriculum,
    Family,
    Hold,
    Kick,
    Lifetime,
    Logits,
    MatchedNull,
    Nudge,
    Parts,
    Permute,
    Recipe,
    Replace,
    Reset,
    Reshuffle,
    Scale,
    Study,
    Treatment,
    Window,
    measure,
)
from bygones.core.errors import BygonesError, DesignError, RecipeError

NOTHING: list[Any] = [None, 3.5, b"reset", object(), math.nan, (), {}]
AT = Window(4, 5)


def treatment() -> Treatment:
    return Treatment("moments", Reset(), AT)


def study(**changes: Any) -> Study:
    given: dict[str, Any] = {
        "recipe": plain,
        "arms": [Arm("reset", treatment())],
        "fork_at": 4,
        "horizons": (0, 1),
        "seeds": (0, 1),
    }
    return Study(**{**given, **changes})


def parts(**changes: Any) -> Parts:
    """The parts of a run with one of them replaced."""
    made = classifier(0)
    names = ("model", "optimizer", "data", "order", "probe_set")
    return Parts(**{**{name: getattr(made, name) for name in names}, **changes})


WRONG: dict[str, list[Callable[[], Any]]] = {
    "a treatment's source": [lambda v=v: Treatment(v, Reset(), AT) for v in NOTHING],
    "a treatment's intervention": [
        *(lambda v=v: Treatment("moments", v, AT) for v in NOTHING),
        lambda: Treatment("moments", Reset, AT),
        lambda: Treatment("moments", "reset", AT),
    ],
    "a treatment's window": [
        *(lambda v=v: Treatment("moments", Reset(), v) for v in NOTHING),
        lambda: Treatment("moments", Reset(), (4, 5)),
        lambda: Treatment("moments", Reset(), range(4, 5)),
    ],
    "a treatment's leaves": [lambda v=v: Treatment("moments", Reset(), AT, v) for v in NOTHING],
    "a window's": [lambda v=v: Window(v, 9) for v in ["4", None, 4.0, True, math.nan, 2**64]],
    "Scale(alpha=…)": [lambda v=v: Scale(v) for v in ["x", None, math.nan, math.inf, True, b"1"]],
    "Nudge(": [
        lambda: Nudge("x"), lambda: Nudge(math.nan), lambda: Nudge(0.1, 1.5), lambda: Nudge(0.1, draw=-1)
    ],
    "Permute(draw=…)": [lambda: Permute("1"), lambda: Permute(-1), lambda: Permute(None)],
    "Kick(by=…)": [lambda v=v: Kick(v) for v in [None, 0.5, "weight", (1,)]],
    "the kick of": [lambda v=v: Kick({"weight": v}) for v in [None, "x", math.nan, object()]],
    "Replace(with_=…)": [lambda v=v: Replace(v) for v in [None, 0.5, "policy", ("policy",)]],
    "MatchedNull(of=…)": [lambda v=v: MatchedNull(v) for v in [None, "reset", Reset]],
    "an arm's name": [
        *(lambda v=v: Arm(v, treatment()) for v in NOTHING),
        *(lambda v=v: Arm(v, treatment()) for v in ["", "  ", "a\nb", "a\0", "\ud800", "x" * 999]),
    ],
    "an arm's treatments": [lambda v=v: Arm("reset", v) for v in [None, 1, "reset", {}]],
    "a treatment must be": [lambda: Arm("reset", [None]), lambda: Arm("reset", [treatment(), Treatment])],
    "an arm's role": [lambda v=v: Arm("reset", treatment(), v) for v in [None, "null ", 1]],
    "a recipe must be": [lambda v=v: study(recipe=v) for v in [None, 3, lambda seed: None, b"x"]],
    "a study's arms": [lambda v=v: study(arms=v) for v in [None, Arm("a", treatment()), "reset", 3]],
    "an arm must be": [lambda: study(arms=[treatment()]), lambda: study(arms=["reset"])],
    "fork_at": [lambda v=v: study(fork_at=v) for v in ["4", None, 4.5, True, (4, "5"), 10**30]],
    "horizon": [lambda v=v: study(horizons=v) for v in [None, 3, "01", [None], [1.5], itertools.count()]],
    "seed": [
        lambda v=v: study(seeds=v) for v in [None, 3, "01", ["0"], [True], range(10**12), b"01", [2**64]]
    ],
    "a study's name": [lambda v=v: study(name=v) for v in [None, 3, "", "\ud800", "a\tb", b"n"]],
    "a study's probe": [lambda v=v: study(probe=v) for v in [3, "logits", Logits, lambda parts: parts]],
    "a study's family": [lambda v=v: study(family=v) for v in ["main", 3, ("reset",), Family]],
    "margin": [
        lambda v=v: study(margins=v)
        for v in [3, "tv", {"tv": "x"}, {"tv": None}, {"tv": math.nan}, {3: 0.1}, [("tv",)]]
    ],
    "a family's": [
        lambda: Family(None, ("reset",), ("tv",), (1,)),
        lambda: Family("main", "reset", ("tv",), (1,)),
        lambda: Family("main", ("reset",), "tv", (1,)),
        lambda: Family("main", ("reset",), ("tv",), 1),
    ],
    "a lifetime's": [lambda: Lifetime("long"), lambda: Lifetime("exact", "x"), lambda: Lifetime("exact", -1)],
    "Reshuffle(": [lambda v=v: Reshuffle(24, v) for v in [4.0, "4", None, True]],
    "score": [
        lambda: Curriculum(2, 1, scores=None, growth=3), lambda: Curriculum(2, 1, scores=(0.1, "x"), growth=3)
    ],
    "Logits(": [lambda v=v: Logits(v) for v in [None, 3, ""]] + [lambda: Logits("model", also="ema")],
    "the settings of a recipe": [lambda: Recipe.of(plain, lr=object()), lambda: Recipe.of(plain, f=len)],
}  # fmt: skip

WRONG_PARTS: dict[str, list[Callable[[], Any]]] = {
    "Parts(model=…)": [lambda v=v: parts(model=v) for v in [*NOTHING, torch.nn.Linear]],
    "Parts(optimizer=…)": [lambda v=v: parts(optimizer=v) for v in [*NOTHING, torch.optim.SGD]],
    "Parts(order=…)": [lambda v=v: parts(order=v) for v in [*NOTHING, Reshuffle, range(4)]],
    "Parts(data=…)": [
        lambda v=v: parts(data=v) for v in [None, 3, "data", (), (None,), (torch.tensor(1.0),)]
    ],
    "draws from 24 examples": [
        lambda: parts(data=(torch.zeros(5, 5), torch.zeros(5))),
        lambda: parts(data=[]),
    ],
    "equally many examples": [lambda: parts(data=(torch.zeros(24, 5), torch.zeros(23)))],
    "Parts(loss=…)": [lambda v=v: parts(loss=v) for v in [None, "mse", 3]],
    "Parts(train_step=…)": [lambda v=v: parts(train_step=v) for v in [None, "step"]],
    "Parts(scheduler=…)": [lambda v=v: parts(scheduler=v) for v in [3, "cosine", {"a": 3}]],
    "Parts(averages=…)": [lambda v=v: parts(averages=v) for v in [0.99, torch.nn.Linear(1, 1)]],
    "Parts(others=…)": [lambda v=v: parts(others=v) for v in [None, [1], {3: 1}]],
    "Parts(augment=…)": [lambda: parts(augment="flip")],
    "Parts(probe_set=…)": [
        lambda v=v: parts(probe_set=v)
        for v in [
            3,
            "x",
            (),
            (torch.zeros(0, 5), torch.zeros(0)),
            (torch.zeros(6, 5), torch.zeros(5)),
        ]
    ],
    "Parts(probe_images=…)": [lambda v=v: parts(probe_images=v) for v in ["x", torch.zeros(6)]],
}


def each(wrong: dict[str, list[Callable[[], Any]]]) -> Iterator[Any]:
    for said, makers in wrong.items():
        for number, make in enumerate(makers):
            yield pytest.param(said, make, id=f"{said}-{number}")


@pytest.mark.parametrize(("said", "make"), list(each(WRONG)))
def test_a_value_of_the_wrong_kind_is_refused_where_it_is_given(said, make):
    with pytest.raises(DesignError) as caught:
        make()
    assert said in str(caught.value)
    assert str(caught.value).isascii() or str(caught.value).encode()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("said", "make"), list(each(WRONG_PARTS)))
def test_a_part_of_the_wrong_kind_is_refused_where_it_is_given(said, make):
    with pytest.raises(RecipeError) as caught:
        make()
    assert said in str(caught.value)


class Hostile:
    """An object each of whose methods raises."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __bool__ = __index__ = __iter__ = __len__ = __eq__ = __float__ = __repr__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


HOSTILE: list[Any] = [Hostile(), 10**400, -(10**400), np.array([1, 2]), torch.empty(0), range(0)]
TAKES_ONE: dict[str, Callable[[Any], Any]] = {
    "Window": lambda v: Window(v, 9),
    "Scale": Scale,
    "Nudge": Nudge,
    "Permute": Permute,
    "Lifetime": Lifetime,
    "Lifetime, steps": lambda v: Lifetime("exact", v),
    "Reshuffle": lambda v: Reshuffle(v, 4),
    "Study, fork_at": lambda v: study(fork_at=v if not isinstance(v, np.ndarray) else ()),
    "Study, siblings": lambda v: study(siblings=v),
}
TAKES_SEVERAL: dict[str, Callable[[Any], Any]] = {
    "Arm": lambda v: Arm("a", v),
    "Family": lambda v: Family("main", v, ("tv",), (1,)),
    **{
        name: lambda v, name=name: study(**{name: v})
        for name in ("recipe", "arms", "horizons", "seeds", "margins", "later_forks")
    },
    **{
        name: lambda v, name=name: parts(**{name: v})
        for name in (
            "model",
            "optimizer",
            "data",
            "order",
            "probe_set",
            "loss",
            "others",
            "augment",
        )
    },
}


@pytest.mark.parametrize("name", TAKES_ONE)
def test_an_object_that_raises_and_a_number_beyond_every_float_are_refused(name):
    for value in HOSTILE:
        with pytest.raises(DesignError):
            TAKES_ONE[name](value)


@pytest.mark.parametrize("name", TAKES_SEVERAL)
def test_an_object_that_raises_where_it_is_looked_at_is_refused(name):
    with pytest.raises((DesignError, RecipeError)):
        TAKES_SEVERAL[name](Hostile())


def test_what_is_meant_is_taken():
    """Numpy's numbers, generators and named optimizers are right, and are kept as Python's own values."""
    made = study(
        fork_at=np.int64(4),
        horizons=(h for h in (0, np.int32(1))),
        seeds=np.arange(2),
        margins={"tv": np.float32(1)},
    )
    assert [type(n) for n in (made.fork_at, *made.horizons, *made.seeds)] == [int] * 5
    assert type(Scale(np.float64(0.5)).alpha) is float
    assert Curriculum(2, 1, scores=np.array([0.1, 0.2]), growth=3).scores == (0.1, 0.2)
    assert parts(optimizer={"a": classifier(0).optimizer}).optimizers.keys() == {"a"}
    assert parts(data=list(range(24))).fetch(np.array([1, 2])).tolist() == [1, 2]
    assert Kick({"weight": math.inf}).by == {"weight": math.inf}
    assert Arm("an arm with ü and a 你", Treatment("moments", Hold(), AT)).name


def labelled(seed: int, label: int) -> Parts:
    made = plain(seed)
    assert made.probe_set is not None
    made.probe_set[1][0] = label
    return made


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_label_that_is_no_class_is_refused_before_it_is_stored(label):
    """The report would take another input's probability for it, or fail."""
    with pytest.raises(RecipeError, match=rf"the label {label} .* labels are 0 to 2"):
        measure(small(("reset",), (0, 1), (0, 1), recipe=Recipe.of(labelled, label=label)))


def fractional(seed: int) -> Parts:
    made = plain(seed)
    assert made.probe_set is not None
    made.probe_set = (made.probe_set[0], made.probe_set[1].float())
    return made


def test_labels_that_are_no_whole_numbers_are_refused():
    with pytest.raises(BygonesError, match="whole numbers"):
        measure(small(("reset",), (0, 1), (0, 1), recipe=fractional))
