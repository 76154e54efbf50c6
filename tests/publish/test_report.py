"""A report is one page that needs nothing else, hides nothing, and is the same every time."""

from __future__ import annotations

import csv
import html
import math
import re
import resource
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.effects import all_effects
from bygones.analysis.equivalence import equivalent_effect
from bygones.analysis.estimators import paired_t
from bygones.analysis.meta_analysis import pool
from bygones.analysis.multiplicity import Family, adjust
from bygones.analysis.pairing import pairing_gains
from bygones.attach.isolation.fork import run_in_fork
from bygones.core.errors import DesignError
from bygones.publish.report import forest, svg, write_comparison, write_report
from bygones.publish.report.drawing import CSS_VARIABLES
from bygones.publish.report.evidence import leading
from bygones.publish.report.scales import scale
from bygones.publish.verdicts import readings

pytestmark = pytest.mark.xdist_group("report")  # what they share is made once

HOSTILE = "<script>alert(1)</script>"
MATHS = 'r $m$ & "v" id="x" #0b5fae'  # maths, entities, an id and one of the figures' colours
DIVERGED = ("swap-order", 2, 380)
AWKWARD = "50%_&<b> {^~$#\\"  # every sign that LaTeX takes for itself
MARGINS = {"accuracy": 0.05, "tv": 0.001}  # one that holds, one that does not


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
    whole = make_outcomes(num_seeds=10, num_inputs=16, diverged=(DIVERGED,), image_size=4)
    whole = without_null(whole, "swap-order")
    whole = renamed(whole, {"reset-moments": HOSTILE, "reset-batchnorm": MATHS})
    family = {
        "name": "main",
        "arms": [HOSTILE, MATHS],
        "metrics": ["tv", "brier"],  # Brier is not shown otherwise
        "horizons": [10, 300],
        "method": "holm",
    }
    return whole.assign_attrs(family=family, margins=MARGINS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, without files of figures, of a study with no faults that declares nothing."""
    folder = tmp_path_factory.mktemp("plain")
    clean = make_outcomes(num_seeds=6, num_inputs=8).assign_attrs(findings=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "save_figure", lambda figure, folder, name: svg.to_svg(figure, name))
        write_report(clean, folder, effects=all_effects(clean, ("tv",)))
    return folder


@pytest.fixture(scope="module")
def folder(outcomes: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(outcomes, folder, for_print=True)
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
    inside = "data:image/png;base64,"  # a picture that the page itself holds
    found = [name for name in named if not name.startswith(("#", inside))]
    page = re.sub(inside + r"[A-Za-z0-9+/=\s]*", "", page)
    return found + re.findall(r"https?:|//[a-z]|@import|<link|<iframe|<object", page)


def text_of(page: str) -> str:
    """What a reader can read and copy: tags gone, entities decoded, white space single."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_nothing_is_asked_from_outside(page: str) -> None:
    assert outside_references(page) == []
    assert "<script" not in page
    assert outside_references('<img src="a.png">')
    assert outside_references('<image href="data:image/svg+xml;base64,AA">')
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
    assert "no matched null was run" in text


def test_a_study_without_faults_says_so(plain: Path) -> None:
    text = text_of((plain / "report.html").read_text("utf-8"))
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
        write_report(outcomes, tmp_path, for_print=True)
        assert dict(matplotlib.rcParams) == before
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert sorted(first) == sorted(again)
    assert [name for name in first if first[name] != again[name]] == []


def test_for_print_every_figure_comes_in_three_forms(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert {"answer", "score-accuracy", "score-nll"} < names
    assert len([name for name in names if name.startswith("course-")]) == 3
    for name in names:
        for form in ("pdf", "png"):
            assert (folder / "figures" / f"{name}.{form}").stat().st_size > 1000


def test_without_print_each_figure_is_an_svg_alone(tmp_path: Path) -> None:
    write_report(make_outcomes(num_seeds=3, num_inputs=4), tmp_path)
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg"}


def test_the_contents_lead_to_every_heading(page: str) -> None:
    headings = re.findall(r'<h2 id="(.*?)">', page)
    assert len(headings) > 6
    contents = re.search(r'<nav class="contents".*?</nav>', page)
    assert contents is not None
    assert re.findall(r'href="#(.*?)"', contents[0]) == headings


def test_the_page_says_how_good_the_control_is(plain: Path) -> None:
    outcomes = make_outcomes(num_seeds=6, num_inputs=8)
    right = outcomes["logits"].sel(arm="control").argmax("class") == outcomes["labels"]
    share = 100 * float(right.isel(step=-1).mean())
    said = text_of((plain / "report.html").read_text("utf-8"))
    found = re.search(r"is right on ([\d.]+)", said)
    assert found is not None
    assert float(found[1]) == pytest.approx(share, rel=0.05)


def test_colours_in_the_page_follow_light_and_dark(page: str) -> None:
    figures_in_page = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    styles = "".join(re.findall(r'style="[^"]*"', figures_in_page))
    assert re.findall(r"#[0-9a-f]{6}\b", styles) == []
    for variable in CSS_VARIABLES.values():
        assert f"{variable}:" in page


@pytest.mark.usefixtures("page_only")
def test_plain_numbers_are_reported_without_scores(tmp_path: Path) -> None:
    page = write_report(make_outcomes(num_seeds=4, num_inputs=8, kind="values"), tmp_path)
    text = text_of(page.read_text("utf-8"))
    assert "RMS" in text
    assert "Whether the scores noticed" not in text
    assert {row["metric"] for row in rows(tmp_path, "effects")} == {"rms"}


@pytest.mark.usefixtures("page_only")
def test_one_seed_has_neither_interval_nor_ceiling(tmp_path: Path) -> None:
    alone = make_outcomes(num_seeds=1, num_inputs=8)
    page = write_report(alone, tmp_path, effects=all_effects(alone, ("tv",)))
    text = text_of(page.read_text("utf-8"))
    assert "too few pairs to call" in text
    assert "there is no other seed to compare with" in text


@pytest.mark.usefixtures("page_only")
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
    assert verdicts["reset-moments"] == "unreached"
    # Where the sham is as far from the control, nothing says which of the two does not reach it.
    same["logits"].values[:, [treated, names.index("sham")]] += np.float32(1e-3) * np.arange(5)
    verdicts = {r.arm: r.kind for r in readings(all_effects(same, ("tv",)), "tv")}
    assert verdicts["reset-moments"] == "sham"


@pytest.mark.usefixtures("page_only")
def test_effects_can_be_handed_over(outcomes: xr.Dataset, tmp_path: Path) -> None:
    write_report(outcomes, tmp_path, effects=all_effects(outcomes, ("js", "tv")))
    assert {row["metric"] for row in rows(tmp_path, "effects")} == {"js", "tv"}
    with pytest.raises(DesignError, match="a report leads with one of the distances tv, rms"):
        write_report(outcomes, tmp_path, effects=all_effects(outcomes, ("accuracy",)))


def test_small_beside_large_gets_a_logarithm() -> None:
    assert scale([0.2, 0.5, 1.0], 0.001).threshold is None
    wide = scale([0.0, 0.002, 15.0], 0.001)
    assert wide.threshold == pytest.approx(0.001)
    assert wide.ticks[0] == 0
    assert wide.high > 15
    assert np.all(np.diff(wide.ticks) > 0)


# ---------------------------------------------------------------- the later sections


def section(page: str, heading: str) -> str:
    """What a reader can read of one section."""
    found = re.search(rf"<h2[^>]*>{re.escape(heading)}</h2>.*?</section>", page, flags=re.DOTALL)
    assert found is not None, heading
    return text_of(found[0])


def test_the_declared_family_is_judged_together(
    page: str, folder: Path, outcomes: xr.Dataset
) -> None:
    steps = [310, 600]
    effects = all_effects(outcomes, ("tv", "brier"), steps=steps)
    adjusted = adjust(effects, Family("main", (HOSTILE, MATHS), ("tv", "brier"), (10, 300)))
    text = section(page, "All comparisons together")
    assert str(adjusted) in text
    assert "declared with the study" in text
    written = rows(folder, "family")
    assert len(written) == 8
    for row, comparison in zip(written, adjusted.comparisons, strict=True):
        assert (row["arm"], row["metric"]) == (comparison.arm, comparison.metric)
        assert row["adjusted"] == repr(comparison.adjusted)
        assert row["found"] == str(comparison.found)
        assert f"{comparison.adjusted:.2g}".split("e")[0] in text
    assert text.count(" found ") == 1 + len(adjusted.found) + text.count("not found")


def test_without_a_declaration_the_headline_at_the_end_is_the_family(plain: Path) -> None:
    page = (plain / "report.html").read_text("utf-8")
    text = section(page, "All comparisons together")
    assert "No family was declared" in text
    assert "3 arms × 1 metric × 1 horizon = 3 comparisons" in text
    assert "300 steps on), Holm" in text
    assert [row["horizon"] for row in rows(plain, "family")] == ["300"] * 3
    assert "no absence of an effect can be claimed" in section(page, "No effect to speak of?")
    assert rows(plain, "equivalence") == []


def test_declared_margins_are_tested(page: str, folder: Path, outcomes: xr.Dataset) -> None:
    text = section(page, "No effect to speak of?")
    written = {(row["arm"], row["metric"]): row for row in rows(folder, "equivalence")}
    assert len(written) == 3 * len(MARGINS)
    verdicts = set()
    for (arm, metric), row in written.items():
        found = equivalent_effect(outcomes, arm, 600, MARGINS[metric], metric)
        verdicts.add(found.equivalent)
        assert row["equivalent"] == str(found.equivalent)
        assert row["p_upper"] == repr(found.p_upper)
        assert row["sentence"] in text
    assert verdicts == {True, False}
    assert "accuracy (percentage points), 300 steps on: equivalent within ±5:" in text


def test_where_pairing_does_not_pay_is_said(page: str, folder: Path, outcomes: xr.Dataset) -> None:
    found = {
        (p.arm, p.metric, p.horizon): p for p in pairing_gains(outcomes, ("tv", "accuracy", "nll"))
    }
    written = rows(folder, "pairing")
    assert len(written) == len(found)
    for row in written:
        one = found[row["arm"], row["metric"], int(row["horizon"])]
        for column in ("variance_ratio", "correlation"):
            number = getattr(one, column)
            assert row[column] == ("" if number is None else repr(number))
    idle = {p.arm for p in found.values() if p.pays is False}
    assert idle
    said = section(page, "What pairing was worth").partition("Arm, steps on")[0]
    assert "Where pairing does not pay" in said
    assert idle == {arm for arm in (HOSTILE, MATHS, "swap-order") if arm in said}


def test_the_inputs_of_the_leading_arm_are_shown(page: str, folder: Path) -> None:
    text = section(page, "Which inputs it moves")
    assert f"{HOSTILE} , 300 steps after the fork: the largest effect that is more than" in text
    assert "squared norm" in text
    assert page.count('xlink:href="data:image/png') + page.count('href="data:image/png') >= 16
    groups = [row["group"] for row in rows(folder, "breakdown")]
    assert "1 of 4 (hardest)" in groups
    assert any(group.startswith("class ") for group in groups)
    arms = {row["arm"] for row in rows(folder, "calibration")}
    assert arms == {HOSTILE, "control"}
    assert "Brier score" in section(page, "Calibration")


def test_without_images_there_are_none(plain: Path) -> None:
    page = (plain / "report.html").read_text("utf-8")
    assert "squared norm" in section(page, "Which inputs it moves")
    assert "data:image" not in page


@pytest.mark.usefixtures("page_only")
def test_with_few_pairs_a_line_says_how_many_tell_which_inputs_are_moved(tmp_path: Path) -> None:
    few = make_outcomes(num_seeds=5, num_inputs=8)
    page = write_report(few, tmp_path, effects=all_effects(few, ("tv", "accuracy"))).read_text()
    said = section(page, "Which inputs it moves")
    assert "takes 6 seed pairs at 95%; there are 5." in said
    assert "moved 0 of" not in page
    assert not re.search(r"[-−]?\binf\b", re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.S))
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert not tables & {"moved_inputs", "breakdown"}
    assert "calibration" in tables


def test_which_arm_leads() -> None:
    planted = make_outcomes(num_seeds=8, num_inputs=64)
    read = readings(all_effects(planted, ("tv",)), "tv")
    by_arm = {reading.arm: reading for reading in read}
    still, gone = by_arm["swap-order"], by_arm["reset-batchnorm"]
    assert leading([still, *read]) == (by_arm["reset-moments"], by_arm["reset-moments"].last)
    assert leading([gone, still]) == (still, still.last)
    assert leading([gone]) == (gone, gone.peak)
    assert gone.peak.horizon < gone.last.horizon
    alone = make_outcomes(num_seeds=1, num_inputs=8)
    assert leading(readings(all_effects(alone, ("tv",)), "tv")) is None


# ---------------------------------------------------------------- LaTeX


def latex_faults(text: str) -> list[str]:
    """What would stop LaTeX, or print something else than was meant."""
    faults, open_environments = [], []
    text = re.sub(r"(?<!\\)%.*", "", text)
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        elif not open_environments or open_environments.pop() != name:
            faults.append(f"\\end{{{name}}} ends nothing")
    faults += [f"{name} never ends" for name in open_environments]
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        faults += ["a brace closes nothing"] if depth < 0 else []
    faults += ["a brace stays open"] if depth > 0 else []
    words = re.sub(r"\$[^$\n]*\$", "", text.replace(r"\$", ""))
    faults += [f"bare {sign}" for sign in re.findall(r"(?<!\\)[#_^~$<>|]|[^\x00-\x7f]", words)]
    for body in re.findall(r"\\midrule(.*?)(?:\\bottomrule|\\end)", text, flags=re.DOTALL):
        cells = {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if r"\\" in line}
        faults += ["rows of unequal length"] if len(cells) > 1 else []
    return faults


def test_the_latex_checker_sees_faults() -> None:
    for wrong in (
        r"\begin{table} \end{tabular}", r"\begin{table}", "{", "}", "50_", "a < b", "−",
        "\\midrule\na & b \\\\\na \\\\\n\\bottomrule",
    ):  # fmt: skip
        assert latex_faults(wrong), wrong


@pytest.mark.usefixtures("page_only")
def test_every_table_is_latex_too(tmp_path: Path) -> None:
    outcomes = make_outcomes(num_seeds=7, num_inputs=8, diverged=(DIVERGED,))
    outcomes = renamed(outcomes, {"reset-moments": AWKWARD}).assign_attrs(margins=MARGINS)
    effects = all_effects(outcomes, ("tv", "accuracy"))
    write_report(outcomes, tmp_path, effects=effects)
    folder = tmp_path / "tables"
    names = {path.stem for path in folder.glob("*.tex")} - {"paper", "appendix"}
    assert names == {path.stem for path in folder.glob("*.csv")}
    assert {"answer", "effects", "family", "equivalence", "pairing", "breakdown"} < names
    escaped = r"50\%\_\&\textless{}b\textgreater{} \{\textasciicircum{}\textasciitilde{}\$\#"
    for name in names:
        text = (folder / f"{name}.tex").read_text(encoding="utf-8")
        assert latex_faults(text) == [], name
        assert AWKWARD not in text
        assert r"\toprule" in text
    text = (folder / "effects.tex").read_text(encoding="utf-8")
    assert escaped in text
    assert text.count(r"\begin{table}") + text.count(r"\begin{longtable}") == 2  # one a metric
    varies = next(e for e in effects if e.metric == "accuracy" and e.estimate.low < 0)
    points = varies.estimate.scaled(100.0)  # accuracy is quoted in points
    quoted = f"{points.number} {points.interval.replace('95% CI ', '')}"
    assert quoted.replace("-", "$-$") in text


# ---------------------------------------------------------------- several studies


def studies() -> list:
    rng = np.random.default_rng(0)
    estimates = {
        name: paired_t(mean + 0.05 * rng.standard_normal(num))
        for name, mean, num in ((HOSTILE, 0.1, 8), (AWKWARD, 0.3, 16), ("third", 0.2, 5))
    }
    alone = {**estimates, "one seed": paired_t([0.2])}
    two = dict(list(estimates.items())[:2])
    return [pool(alone, "share of another seed"), pool(two, "<b>two</b> only")]


def test_a_comparison_is_one_page_and_always_the_same(tmp_path: Path) -> None:
    pooled = studies()
    page = write_comparison(pooled, tmp_path / "one")
    write_comparison(studies(), tmp_path / "two")
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    again = {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    assert first == again
    assert {"forest-01-share-of-another-seed.pdf", "studies.csv", "studies.tex"} < set(first)
    text = page.read_text(encoding="utf-8")
    assert outside_references(text) == []
    assert "<script" not in text
    assert "<b>" not in text
    said = text_of(text)
    for one in pooled:
        assert str(one)[1:] in said
    assert "no finite interval" in said
    assert "takes three studies" in first["forest-02-b-two-b-only.svg"].decode()
    assert "takes three studies" not in first["forest-01-share-of-another-seed.svg"].decode()
    written = rows(tmp_path / "one", "studies")
    weights = [row["weight"] for row in written if row["effect"] == pooled[0].what]
    assert weights[:4] == [
        "" if c.weight is None else repr(c.weight) for c in pooled[0].contributions
    ]
    for name in ("studies", "heterogeneity"):
        assert latex_faults((tmp_path / f"one/tables/{name}.tex").read_text(encoding="utf-8")) == []


def test_a_comparison_needs_effects_with_names(tmp_path: Path) -> None:
    with pytest.raises(DesignError, match="at least one pooled effect"):
        write_comparison([], tmp_path)
    with pytest.raises(DesignError, match="a name"):
        write_comparison([studies()[0]] * 2, tmp_path)


def test_a_forest_shows_mean_prediction_and_what_is_left_out() -> None:
    three, two = (svg.to_svg(forest(one, "share"), "forest") for one in studies())
    drawn = text_of(three)
    assert "no weight" in drawn
    assert "a further study" in drawn
    assert "takes three studies" not in drawn
    assert "takes three studies" in text_of(two)


def test_a_figure_that_finds_no_room_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where matplotlib's PDF writer meets it in its own file, it raises another error instead."""
    monkeypatch.setattr(svg, "to_svg", lambda figure, name: "")  # so that the PDF is the first

    def draw(size: int) -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        figure = Figure()
        figure.subplots().plot(np.random.default_rng(0).random(3000))
        try:
            svg.save_figure(figure, svg.FigureFolder(tmp_path, for_print=True), "figure")
        except Exception as error:
            return type(error).__name__
        return "written"

    assert {run_in_fork(partial(draw, size)) for size in (1, 3000, 6000, 9000)} == {"OSError"}


# ------------------------------------------------------------------ what was asked, and files for a paper


def test_a_title_and_a_question_stand_on_top_and_are_escaped(tmp_path: Path) -> None:
    clean = make_outcomes(num_seeds=4, num_inputs=6)
    effects = all_effects(clean, ("tv",))
    title, question = "Momentum <b>", "May it be dropped & when?"
    write_report(clean, tmp_path, effects=effects, title=title, question=question)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Momentum &lt;b&gt;</h1>" in page
    assert '<p class="question">May it be dropped &amp; when?</p>' in page
    assert clean.attrs["digests"]["study"] in (tmp_path / "tables" / "study.bib").read_text()


def test_the_losses_of_the_control_are_drawn_with_the_fork(page: str, folder: Path) -> None:
    assert '<h2 id="the-untouched-network">' in page
    assert (folder / "figures" / "losses.svg").is_file()


@pytest.mark.long
def test_the_table_for_a_paper_fits_and_the_appendix_compiles(folder: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex here")
    document = [
        r"\documentclass{article}", r"\usepackage{booktabs,longtable,textcomp,pdflscape}",
        r"\begin{document}", r"\input{tables/paper}", r"\typeout{THE APPENDIX}", r"\clearpage",
        r"\input{tables/appendix}", r"\end{document}",
    ]  # fmt: skip
    shutil.copytree(folder / "tables", tmp_path / "tables")
    (tmp_path / "main.tex").write_text("\n".join(document))
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "main.tex"], cwd=tmp_path, capture_output=True,
        text=True, errors="replace",
    )  # fmt: skip
    if "booktabs.sty' not found" in ran.stdout:
        pytest.skip("this TeX has no booktabs (texlive-latex-recommended)")
    wrong = [line for line in ran.stdout.splitlines() if line.startswith(("!", "l."))]
    assert wrong == []
    assert "Overfull" not in ran.stdout.partition("THE APPENDIX")[0]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000
