"""A report is one page that needs nothing else, hides nothing, and is the same every time."""

from __future__ import annotations

import csv
import html
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from tests.synthetic import make_outcomes

from bygones.effects import all_effects
from bygones.errors import DesignError
from bygones.report import figures, write_report
from bygones.report.reading import readings

HOSTILE = "<script>alert(1)</script>"
MATHS = 'r $m$ & "v" id="x" #0b5fae'  # maths, entities, an id and one of the figures' colours
DIVERGED = ("swap-order", 2, 380)


def renamed(outcomes: xr.Dataset, names: dict[str, str]) -> xr.Dataset:
    """The same outcomes with other names for some arms."""
    arms = [names.get(arm, arm) for arm in outcomes["arm"].values.tolist()]
    described = [
        {
            **arm,
            "name": names.get(arm["name"], arm["name"]),
            "null_of": names.get(arm["null_of"], arm["null_of"]),
            "sentence": f"rewriting {names[arm['name']]}"
            if arm["name"] in names
            else arm["sentence"],
        }
        for arm in outcomes.attrs["arms"]
    ]
    return outcomes.assign_coords(arm=arms).assign_attrs(arms=described)


def without_null(outcomes: xr.Dataset, arm: str) -> xr.Dataset:
    """The same outcomes without the matched null of an arm."""
    left = [a for a in outcomes.attrs["arms"] if a["null_of"] != arm]
    kept = outcomes.sel(arm=[a["name"] for a in left])
    return kept.assign_attrs(arms=left)


@pytest.fixture(scope="module")
def outcomes() -> xr.Dataset:
    whole = make_outcomes(num_seeds=6, num_inputs=16, diverged=(DIVERGED,))
    whole = without_null(whole, "swap-order")
    return renamed(whole, {"reset-moments": HOSTILE, "reset-batchnorm": MATHS})


@pytest.fixture(scope="module")
def folder(outcomes: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(outcomes, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def outside_references(page: str) -> list[str]:
    """Whatever would make a browser ask for something: attributes, CSS, imports, any address."""
    named = re.findall(r'\b(?:src|href|action|srcset|poster|data)\s*=\s*"([^"]*)"', page)
    named += re.findall(r"url\(([^)]*)\)", page)
    found = [name for name in named if not name.startswith("#")]
    return found + re.findall(r"https?:|//[a-z]|@import|<link|<iframe|<object", page)


def text_of(page: str) -> str:
    """What a reader can read and copy: tags gone, entities decoded, white space single."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_nothing_is_asked_from_outside(page: str) -> None:
    assert outside_references(page) == []
    assert "<script" not in page
    assert outside_references('<img src="a.png">')
    assert outside_references('<svg xmlns="http://www.w3.org/2000/svg">')


def test_everything_is_escaped(page: str, folder: Path) -> None:
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert MATHS in text_of(drawn)  # neither set as mathematics nor rewritten inside the figures
    for file in (folder / "figures").glob("*.svg"):
        assert "<script" not in file.read_text(encoding="utf-8")
    answer = (folder / "figures" / "answer.svg").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in answer


def test_ids_are_unique_and_references_land(page: str) -> None:
    tags = re.findall(r"<[a-zA-Z][^>]*>", page)
    ids = [name for tag in tags for name in re.findall(r'\sid="([^"]*)"', tag)]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', "".join(tags))
    assert {one or other for one, other in wanted} <= set(ids)
    assert len(wanted) > 10


def test_every_arm_has_its_sentence_and_verdict(page: str, outcomes: xr.Dataset) -> None:
    text = text_of(page)
    read = readings(all_effects(outcomes, ("tv",)), "tv")
    assert len(read) == 3
    for reading in read:
        assert str(reading.last) in text
        assert reading.verdict[1:] in text
        assert reading.arm in text
    for metric in ("accuracy", "nll"):
        for effect in all_effects(outcomes, (metric,), steps=[int(outcomes["step"][-1])]):
            assert str(effect) in text


def test_what_is_wrong_is_shown(page: str, folder: Path, outcomes: xr.Dataset) -> None:
    text = text_of(page)
    assert "Seed 2 of swap-order : the loss was not finite at step 380" in text
    assert rows(folder, "diverged") == [{"arm": "swap-order", "seed": "2", "step": "380"}]
    assert outcomes.attrs["findings"][0][1:] in text
    assert "no matched null to compare with" in text


def test_a_study_without_faults_says_so(tmp_path: Path) -> None:
    clean = make_outcomes(num_seeds=4, num_inputs=8).assign_attrs(findings=[])
    page = write_report(clean, tmp_path, effects=all_effects(clean, ("tv",)))
    text = text_of(page.read_text("utf-8"))
    assert "None: every loss of every run was finite." in text
    assert "No pair was left out." in text
    assert "fork check failed" not in text


def test_tables_hold_the_effects(folder: Path, outcomes: xr.Dataset) -> None:
    found = all_effects(outcomes, ("tv", "disagreement", "accuracy", "nll"))
    written = rows(folder, "effects")
    assert len(written) == len(found)
    for row, effect in zip(written, found, strict=True):
        assert (row["arm"], row["metric"], row["step"]) == (
            effect.arm,
            effect.metric,
            str(effect.step),
        )
        assert row["sentence"] == str(effect)
        for name in ("estimate", "floor", "null", "excess", "ceiling", "fraction"):
            estimate = getattr(effect, name)
            for column, end in ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                number = math.nan if estimate is None else getattr(estimate, end)
                assert row[column] == ("" if math.isnan(number) else repr(float(number)))
    answers = rows(folder, "answer")
    assert [row["arm"] for row in answers] == [r.arm for r in readings(found, "tv")]
    values = [float(row["estimate"]) for row in answers]
    assert values == sorted(values, reverse=True)


def test_equal_inputs_give_equal_bytes(outcomes: xr.Dataset, folder: Path, tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9, "text.usetex": False}):
        before = dict(matplotlib.rcParams)
        write_report(outcomes, tmp_path)
        assert dict(matplotlib.rcParams) == before
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert sorted(first) == sorted(again)
    assert [name for name in first if first[name] != again[name]] == []


def test_every_figure_comes_in_three_forms(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert {"answer", "score-accuracy", "score-nll"} < names
    assert len([name for name in names if name.startswith("course-")]) == 3
    for name in names:
        for form in ("pdf", "png"):
            assert (folder / "figures" / f"{name}.{form}").stat().st_size > 1000


def test_colours_in_the_page_follow_light_and_dark(page: str) -> None:
    figures_in_page = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    styles = "".join(re.findall(r'style="[^"]*"', figures_in_page))
    assert re.findall(r"#[0-9a-f]{6}\b", styles) == []
    for variable in figures.CSS_VARIABLES.values():
        assert f"{variable}:" in page


def test_plain_numbers_are_reported_without_scores(tmp_path: Path) -> None:
    page = write_report(make_outcomes(num_seeds=4, num_inputs=8, kind="values"), tmp_path)
    text = text_of(page.read_text("utf-8"))
    assert "RMS" in text
    assert "Whether the scores noticed" not in text
    assert {row["metric"] for row in rows(tmp_path, "effects")} == {"rms"}


def test_one_seed_has_neither_interval_nor_ceiling(tmp_path: Path) -> None:
    alone = make_outcomes(num_seeds=1, num_inputs=8)
    page = write_report(alone, tmp_path, effects=all_effects(alone, ("tv",)))
    text = text_of(page.read_text("utf-8"))
    assert "too few pairs to call" in text
    assert "there is no other seed to compare with" in text


def test_a_lost_arm_and_a_failed_fork_check_are_shown(tmp_path: Path) -> None:
    lost = tuple(("swap-order", seed, 310) for seed in range(3))
    outcomes = make_outcomes(num_seeds=3, num_inputs=8, diverged=lost)
    failed = {**outcomes.attrs["certificate"], "passed": False}
    outcomes = outcomes.assign_attrs(certificate=failed)
    page = write_report(outcomes, tmp_path, effects=all_effects(outcomes, ("tv",)))
    text = text_of(page.read_text("utf-8"))
    assert "No estimate; no seed pair stayed finite." in text
    assert "3 runs diverged" in text
    assert "The fork check failed" in text


def test_verdicts_of_planted_effects() -> None:
    planted = make_outcomes(num_seeds=8, num_inputs=64)
    verdicts = {r.arm: r.kind for r in readings(all_effects(planted, ("tv",)), "tv")}
    assert verdicts == {"reset-moments": "beyond", "reset-batchnorm": "gone", "swap-order": "like"}
    same = planted.copy(deep=True)
    names = same["arm"].values.tolist()
    treated, control = names.index("reset-moments"), names.index("control")
    same["logits"].values[:, treated] = same["logits"].values[:, control]
    verdicts = {r.arm: r.kind for r in readings(all_effects(same, ("tv",)), "tv")}
    assert verdicts["reset-moments"] == "sham"


def test_effects_can_be_handed_over(outcomes: xr.Dataset, tmp_path: Path) -> None:
    write_report(outcomes, tmp_path, effects=all_effects(outcomes, ("js", "tv")))
    assert {row["metric"] for row in rows(tmp_path, "effects")} == {"js", "tv"}
    with pytest.raises(DesignError, match="a report leads with one of the distances tv, rms"):
        write_report(outcomes, tmp_path, effects=all_effects(outcomes, ("accuracy",)))


def test_small_beside_large_gets_a_logarithm() -> None:
    assert figures.scale([0.2, 0.5, 1.0], 0.001).threshold is None
    wide = figures.scale([0.0, 0.002, 15.0], 0.001)
    assert wide.threshold == pytest.approx(0.001)
    assert wide.ticks[0] == 0
    assert wide.high > 15
    assert np.all(np.diff(wide.ticks) > 0)
