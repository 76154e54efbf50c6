"""Study design: arms, seeds, fork and horizons, as frozen values that are checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args, runtime_checkable

from bygones.analysis.metrics import METRICS
from bygones.analysis.multiplicity import Family
from bygones.core.catalogue import unknown_name
from bygones.core.checks import (
    refuse,
    require_instance,
    require_integer,
    require_items,
    require_number,
    require_text,
)
from bygones.core.code_digest import third_party_digest
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.notebook_text import html_table
from bygones.core.study_facts import RepeatFacts, Role
from bygones.core.text import format_count, join_names
from bygones.core.values import Digest, Lifetime, Window, match_leaves
from bygones.training.interventions import Sham
from bygones.training.probes import Logits
from bygones.training.recipe import Recipe, RecipeFunction
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment, check_pair, is_redraw, matched_null


class TrainingProgram(Protocol):
    """A program that trains: identified by the digest of its code, and named in reports by `str`."""

    def code(self) -> Digest: ...


@runtime_checkable
class ScriptProgram(TrainingProgram, Protocol):
    """A training program that is a script: a file at `path`, identified by `parts` (see `script_digest`)."""

    @property
    def path(self) -> str: ...

    def parts(self) -> dict[str, Any]: ...


class HasSources(Protocol):
    """A run of any kind of program, for what reads its memory sources."""

    @property
    def sources(self) -> Mapping[str, AbstractSource]: ...


@dataclass(frozen=True)
class Arm:
    """An arm: a name, and the treatments that distinguish it from the control."""

    name: str
    treatments: tuple[Treatment, ...]
    role: Role = "treated"
    null_of: str | None = None
    opposite_of: str = ""

    def __init__(
        self,
        name: str,
        treatments: Treatment | Iterable[Treatment] = (),
        role: Role = "treated",
        null_of: str | None = None,
        opposite_of: str = "",
    ) -> None:
        given = (treatments,) if isinstance(treatments, Treatment) else treatments
        given = require_items(given, "an arm's treatments", _treatment, "[Treatment(…)]")
        object.__setattr__(self, "name", require_text(name, "an arm's name"))
        object.__setattr__(self, "treatments", tuple(sorted(given, key=lambda t: t.window)))
        if role not in get_args(Role):
            raise refuse("an arm's role", f"one of {', '.join(get_args(Role))}", role)
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "null_of", null_of)
        object.__setattr__(self, "opposite_of", opposite_of)

    def __str__(self) -> str:
        return " and ".join(str(treatment) for treatment in self.treatments) or "carrying on"


def opposite_arm(arm: Arm) -> Arm:
    """Return the arm that makes the same changes with the opposite sign: an antithetic pair.

    A nudge by −ε in the same direction, a kick by −q, a scaling by 2 − α. Raises `DesignError` for an arm
    with any other treatment, which has no opposite. A study of both gives `antithetic` what it needs.

    >>> from bygones.training.interventions import Scale
    >>> half = Arm("half", Treatment("moments", Scale(0.5), Window(300, 301)))
    >>> print(opposite_arm(half).name, "/", opposite_arm(half))
    opposite of half / scaling moments (1.5) at step 300
    """
    treatments: list[Treatment] = []
    for treatment in arm.treatments:
        other = treatment.intervention.opposite()
        if other is None:
            raise DesignError(
                f"arm '{arm.name}' has no opposite: {treatment} has no sign. Nudges, kicks and scalings (by "
                f"another factor than 1) have one."
            )
        treatments.append(replace(treatment, intervention=other))
    return Arm(f"opposite of {arm.name}", treatments, opposite_of=arm.name)


@dataclass(frozen=True)
class Study:
    """Seed-paired arms that share their past up to `fork_at` and are observed at each horizon after it.

    `horizons` are counted in optimizer steps after the fork; at horizon 0 the treatment has acted and
    nothing has been trained since. Control, sham and matched nulls are added by `add_reference_arms`, so no
    study can forget its references.

    What is declared before the run: `family`, the comparisons that are read together (default: every
    arm at the last horizon in the headline distance, by Holm), and `margins`, by metric the size below
    which an effect counts as none (without one, no absence of an effect can be claimed).

    Two designs give narrower intervals from the same seeds, by repeating every arm within each seed; the
    seed stays the unit, and a seed's numbers are averaged over its repeats.

        siblings=r               r continuations from one shared past: the same effect, at one fork
        fork_at=(a, b, …)        forks off one control trajectory: the mean effect over these fork times

    Of the siblings one goes on as the run does; in each other one, all that is still random at the fork
    (order, streams) is drawn anew, alike for all its arms. Arms are written for the first fork, and treat as
    many steps later at the others (`later_forks`). Both are for recipes.
    """

    recipe: Any  # a Recipe, or another TrainingProgram: a script
    arms: tuple[Arm, ...]
    fork_at: int
    horizons: tuple[int, ...]
    seeds: tuple[int, ...]
    name: str = "study"
    probe: Any = field(default_factory=Logits)  # an AbstractProbe, or a script's
    family: Family | None = None
    margins: tuple[tuple[str, float], ...] = ()
    siblings: int = 1
    later_forks: tuple[int, ...] = ()

    def __init__(
        self,
        recipe: TrainingProgram | RecipeFunction | str,
        arms: Iterable[Arm],
        fork_at: int | Iterable[int],
        horizons: Iterable[int],
        seeds: Iterable[int] = range(8),
        name: str = "study",
        probe: Any = None,
        family: Family | None = None,
        margins: Mapping[str, float] | Iterable[tuple[str, float]] = (),
        siblings: int = 1,
        later_forks: Iterable[int] = (),
    ) -> None:
        known = hasattr(recipe, "code")
        first, *further = _forks(fork_at)
        forks = (*further, *require_items(later_forks, "later_forks", _fork, "(200, 300)"))
        object.__setattr__(self, "recipe", recipe if known else Recipe.of(recipe))  # type: ignore[arg-type]
        object.__setattr__(self, "arms", require_items(arms, "a study's arms", _arm, "[Arm(…)]"))
        object.__setattr__(self, "fork_at", first)
        object.__setattr__(
            self, "horizons", require_items(horizons, "horizons", _horizon, "(0, 1, 10)")
        )
        object.__setattr__(self, "seeds", require_items(seeds, "seeds", _seed, "range(8)"))
        object.__setattr__(self, "name", require_text(name, "a study's name"))
        object.__setattr__(self, "probe", probe if probe is not None else Logits())
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "margins", _margins(margins))
        object.__setattr__(self, "siblings", require_integer(siblings, "siblings"))
        object.__setattr__(self, "later_forks", forks)
        _check(self)

    @property
    def headline(self) -> str:
        """The headline metric: the distance that reports of this study lead with."""
        return self.probe.headline or {"logits": "tv", "values": "rms"}[self.probe.kind]

    @property
    def declared(self) -> Family:
        """The family of comparisons: the study's own, or every arm's headline at the last horizon.

        An arm that is itself a random change has no matched null to be tested against, so it is not in it.
        """
        tested = [arm for arm in self.arms if not all(is_redraw(t) for t in arm.treatments)]
        names = tuple(arm.name for arm in tested or self.arms)
        return self.family or Family("every arm", names, (self.headline,), (self.horizons[-1],))

    @property
    def forks(self) -> tuple[int, ...]:
        """The steps at which the arms fork off the control: `fork_at`, and the later ones."""
        return (self.fork_at, *self.later_forks)

    @property
    def repeats(self) -> tuple[RepeatFacts, ...]:
        """Each repeat of the arms within a seed, siblings of one fork together; the first is `fork_at`'s."""
        return tuple(RepeatFacts(fork, sib) for fork in self.forks for sib in range(self.siblings))

    @property
    def steps(self) -> tuple[int, ...]:
        """The boundaries at which the function is observed after the first fork: it plus each horizon."""
        return tuple(self.fork_at + horizon for horizon in self.horizons)

    @property
    def end(self) -> int:
        """The last boundary to which anything is trained: the last fork's last horizon."""
        return self.forks[-1] + self.horizons[-1]

    def with_seeds(self, seeds: Sequence[int]) -> Study:
        """The same study over other seeds."""
        return replace(self, seeds=tuple(seeds))

    def __repr__(self) -> str:
        seeds, arms = format_count(len(self.seeds), "seed"), format_count(len(self.arms), "arm")
        horizons = join_names(self.horizons, limit=6)
        return f"<Study {self.name}: {seeds}, {arms}, fork at step {self.fork_at}, horizons {horizons}>"

    def _repr_html_(self) -> str:
        """Return the arms as a table, for a notebook."""
        return html_table(
            repr(self)[1:-1], ("arm", "what it does"), [(a.name, a) for a in self.arms]
        )

    def digest(self) -> Digest:
        """Digest of the design: code, arms, horizons, probe, and what was declared. Not of the seeds."""
        arms = [
            [arm.name, [treatment.digest() for treatment in arm.treatments]] for arm in self.arms
        ]
        shown = [self.fork_at, self.horizons, probe_digest(self.probe)]
        if len(self.repeats) > 1:
            shown += [self.siblings, self.later_forks]
        return digest([self.recipe.code(), arms, shown, self.declared, self.margins])


def probe_digest(probe: object) -> Digest:
    """Digest of what a probe reads: its class, its settings, and its code if it is not of bygones."""
    return digest([type(probe).__qualname__, probe, third_party_digest(type(probe))])


def add_reference_arms(treated: Iterable[Arm], run: HasSources) -> tuple[Arm, ...]:
    """Add the reference arms: control, sham, and after each arm its matched null where one is defined.

    The sham goes through the same motions as the arms: it copies and restores every source that any
    arm treats, at every boundary at which one does.
    """
    treated, windows = tuple(treated), dict[str, Window]()
    for treatment in (t for arm in treated for t in arm.treatments):
        seen = windows.get(treatment.source, treatment.window)
        windows[treatment.source] = Window(
            min(seen.start, treatment.window.start), max(seen.stop, treatment.window.stop)
        )
    sham = [Treatment(source, Sham(), window) for source, window in windows.items()]
    arms = [Arm("control", role="control"), Arm("sham", sham, role="sham")]
    for arm in treated:
        arms.append(arm)
        nulls = [
            matched_null(treatment, run.sources[treatment.source], arm.treatments)
            for treatment in arm.treatments
        ]
        if nulls and all(null is not None for null in nulls):
            matched = [null for null in nulls if null is not None]
            arms.append(Arm(_null_name(arm.name), matched, role="null", null_of=arm.name))
    return tuple(arms)


def _null_name(arm: str) -> str:
    return f"null of {arm}"


def check_design(study: Study, run: HasSources) -> None:
    """Raise `DesignError` where a treatment means nothing in this run: its source, rule, leaves or window."""
    for arm in study.arms:
        for treatment in arm.treatments:
            source = run.sources[treatment.source]
            check_pair(treatment, source)
            state = source.capture()
            if state and not match_leaves(state, treatment.leaves):
                raise DesignError(
                    f"arm '{arm.name}': no leaf of {treatment.source} matches '{treatment.leaves}'. "
                    f"There are: {', '.join(list(state)[:6])}{', …' if len(state) > 6 else ''}."
                )


def design_findings(study: Study, run: HasSources) -> list[str]:
    """List for the report, a sentence each, what makes a design hard to read.

    These are windows that do not match the lifetime of their source, and treatments of a part of what only
    means something as a whole.
    """
    arms_of: dict[str, list[str]] = {}
    for arm in study.arms:
        for treatment in arm.treatments:
            source, leaves = run.sources[treatment.source], treatment.leaves
            notes = [*_mismatches(treatment, source.lifetime_of(leaves), study.steps[-1])]
            if torn := source.torn_by(leaves):
                notes.append(f"A part of a compound is treated alone: {torn}.")
            for note in notes:
                arms_of.setdefault(note, []).append(f"'{arm.name}'")
    return [f"{note} Arms: {', '.join(arms)}." for note, arms in arms_of.items()]


def _mismatches(treatment: Treatment, lifetime: Lifetime, end: int) -> Iterator[str]:
    source, length = treatment.source, treatment.window.length
    observed = end - treatment.window.start
    # A memory of one step is a new one at each boundary of the window, an independent draw for example.
    fades = lifetime.kind in ("e-fold", "phase") or (
        lifetime.kind == "exact" and lifetime.steps > 1
    )
    if fades and 1 < length and length > 3 * lifetime.steps:
        yield (
            f"Window longer than the memory: {source} is treated over {length} steps, but its lifetime is "
            f"{lifetime}; for most of that time there is nothing left to treat."
        )
    if lifetime.kind in ("e-fold", "exact") and observed < lifetime.steps:
        yield (
            f"Followed for less than the memory lasts: {source} has a lifetime of {lifetime} and is "
            f"observed for {observed} steps."
        )


def _treatment(value: Any) -> Treatment:
    return require_instance(value, Treatment, "a treatment", "Treatment('moments', Reset(), …)")


def _arm(value: Any) -> Arm:
    return require_instance(value, Arm, "an arm", "Arm('reset', Treatment(…))")


def _horizon(value: Any) -> int:
    return require_integer(value, "a horizon")


def _seed(value: Any) -> int:
    return require_integer(value, "a seed")


def _fork(value: Any) -> int:
    return require_integer(value, "fork_at")


def _forks(fork_at: int | Iterable[int]) -> tuple[int, ...]:
    """Return the steps of `fork_at`, a number or several."""
    if not isinstance(fork_at, Iterable) or isinstance(fork_at, str | bytes):
        return (_fork(fork_at),)
    forks = require_items(fork_at, "fork_at", _fork, "(200, 300)")
    if not forks:
        raise refuse("fork_at", "a step, or several", fork_at)
    return forks


def _margins(margins: Any) -> tuple[tuple[str, float], ...]:
    try:
        given = dict(margins)
    except Exception:  # of an object of the user's
        raise refuse("margins", "sizes by metric, like {'accuracy': 0.005}", margins) from None
    sizes = {
        require_text(name, "a margin's metric"): require_number(size, f"the margin for {name}")
        for name, size in given.items()
    }
    return tuple(sorted(sizes.items()))


def _check(study: Study) -> None:
    """Check everything that can be checked without building a run."""
    if getattr(study.probe, "kind", None) not in ("logits", "values") or isinstance(
        study.probe, type
    ):
        raise refuse("a study's probe", "a probe, like Logits() or Values()", study.probe)
    if study.family is not None:
        require_instance(study.family, Family, "a study's family", "Family('main', …)")
    if study.fork_at < 0:
        raise DesignError(f"fork_at is a step, 0 or later; got {study.fork_at}.")
    _check_repeats(study)
    if not study.horizons:
        raise DesignError("a study needs at least one horizon: steps after the fork to observe at.")
    if min(study.horizons) < 0:
        raise DesignError(
            f"a horizon lies before the fork: {min(study.horizons)}. Horizons are steps after fork_at="
            f"{study.fork_at}, so 0 or more."
        )
    if list(study.horizons) != sorted(set(study.horizons)):
        raise DesignError(f"horizons must ascend without repeats; got {list(study.horizons)}.")
    if not study.seeds:
        raise DesignError("a study needs seeds; got none. Try seeds=range(8).")
    twice = sorted({seed for seed in study.seeds if study.seeds.count(seed) > 1})
    if twice:
        raise DesignError(
            f"seeds must differ, since the seed is the unit; {twice} come more than once."
        )
    if any(seed < 0 for seed in study.seeds):
        raise DesignError(f"seeds are whole numbers, 0 or more; got {min(study.seeds)}.")
    if not study.arms:
        raise DesignError("a study needs at least one arm with a treatment.")
    names = [arm.name for arm in study.arms]
    taken = {"control", "sham", *(_null_name(name) for name in names)}
    for name in names:
        if names.count(name) > 1 or name in taken:
            raise DesignError(
                f"arm names must differ (control, sham and '{_null_name('…')}' are taken); '{name}' repeats."
            )
    for arm in study.arms:
        _check_arm(study, arm)
        if arm.opposite_of and arm.opposite_of not in names:
            raise DesignError(
                f"arm '{arm.name}' is the opposite of '{arm.opposite_of}', which is not in the study. Add it."
            )
    _check_declared(study)


_MOST_SIBLINGS = 1000


def _check_repeats(study: Study) -> None:
    """Check siblings and later forks, and refuse them of a script."""
    if study.siblings < 1:
        raise DesignError(f"siblings are 1 (no repeats) or more; got {study.siblings}.")
    if study.siblings > _MOST_SIBLINGS:
        raise DesignError(
            f"siblings are at most {_MOST_SIBLINGS:,} a fork; got {study.siblings:,}. They narrow what "
            f"varies within a seed alone: add seeds instead."
        )
    if list(study.forks) != sorted(set(study.forks)):
        raise DesignError(f"forks must ascend without repeats; got {list(study.forks)}.")
    if len(study.repeats) > 1 and isinstance(study.recipe, ScriptProgram):
        raise DesignError(
            "siblings and later forks are for recipes: of a script, what is still to be drawn cannot be "
            "drawn anew by itself, and one process is forked at one step. Run it with more seeds, or write "
            "its training as a recipe."
        )


def _check_arm(study: Study, arm: Arm) -> None:
    if not arm.treatments:
        raise DesignError(f"arm '{arm.name}' has no treatment; the control is added by itself.")
    addresses = [treatment.digest() for treatment in arm.treatments]
    for treatment in arm.treatments:
        if addresses.count(treatment.digest()) > 1:
            raise DesignError(f"arm '{arm.name}' has one treatment twice: {treatment}.")
        if treatment.window.start < study.fork_at or treatment.window.stop > study.steps[-1] + 1:
            raise DesignError(
                f"arm '{arm.name}' treats {treatment.source} at {treatment.window}, outside the run: the "
                f"fork is at step {study.fork_at} and the last horizon at step {study.steps[-1]}."
            )


def _check_declared(study: Study) -> None:
    """Check that family and margins name arms, metrics and horizons of this study."""
    family = study.declared
    known = {"arm": [arm.name for arm in study.arms], "horizon": [*map(str, study.horizons)]}
    for arm in family.arms:
        if arm not in known["arm"]:
            raise unknown_name(
                f"arm of this study (in the family '{family.name}')", arm, known["arm"]
            )
    for horizon in map(str, family.horizons):
        if horizon not in known["horizon"]:
            where = f"horizon of this study (in the family '{family.name}')"
            raise unknown_name(where, horizon, known["horizon"])
    for metric in (*family.metrics, *dict(study.margins)):
        METRICS[metric]  # raises, with the nearest name
    for metric, margin in study.margins:
        if not 0 < margin < math.inf:
            raise DesignError(f"the margin for {metric} must be a number above 0; got {margin}.")
