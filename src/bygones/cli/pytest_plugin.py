"""pytest plugin: the fixture `bygones_resume`, for a test that a script's checkpoint loses nothing.

    def test_resume(bygones_resume):
        bygones_resume("train.py", resume="--resume last.pt").assert_nothing_lost()

The check is `bygones audit resume`, in a process of its own. Tests that use the fixture have the marker
`bygones`, so that `pytest -m "not bygones"` leaves them out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_FIXTURE = "bygones_resume"


@dataclass(frozen=True)
class ResumeFound:
    """What a resume check found; `found` is the value that `bygones audit resume --json` prints."""

    found: Mapping[str, Any]

    @property
    def lost(self) -> tuple[str, ...]:
        """The sources with the verdict FAIL, the cause first."""
        return tuple(one["source"] for one in self._failed())

    def assert_nothing_lost(self, allow: Collection[str] = ()) -> None:
        """Raise AssertionError with a line for each lost source, but for those that are allowed."""
        __tracebackhide__ = True
        failed = [one for one in self._failed() if one["source"] not in allow]
        if failed:
            lines = "\n".join(f"  {self._describe(one)}" for one in failed)
            raise AssertionError(f"resuming {self.found['script']} loses:\n{lines}")
        unknown = sorted(set(allow) - set(self.lost))
        if unknown:
            raise AssertionError(f"allowed to be lost, but not lost: {', '.join(unknown)}")

    def _failed(self) -> list[Mapping[str, Any]]:
        return [one for one in self.found["verdicts"] if one["outcome"] == "FAIL"]

    def _describe(self, verdict: Mapping[str, Any]) -> str:
        source = verdict["source"]
        said = f"{source}: {verdict['why']}"
        remedy = self.found["remedies"].get(source)
        if remedy is None:
            return said
        code = ""
        if remedy["save"]:
            code = f"save {'; '.join(remedy['save'])} and load {'; '.join(remedy['load'])}"
        return ". ".join(filter(None, (said, code, remedy["note"])))


@dataclass(frozen=True)
class ResumeCheck:
    """A check of scripts. Relative paths begin at `folder`."""

    folder: Path

    def __call__(
        self,
        script: str | Path,
        arguments: Sequence[str] = (),
        *,
        resume: str = "",
        seeds: str = "0",
        options: Sequence[str] = (),
    ) -> ResumeFound:
        """Run, interrupt and resume a script, and return what was lost.

        `arguments`: the script's, of which `{seed}` is the seed; `resume`: what is added to resume;
        `seeds`: like `0-2`, several give intervals; `options`: further ones of `bygones audit resume`.
        """
        __tracebackhide__ = True
        command = [sys.executable, "-m", "bygones", "audit", "resume", "--json"]
        command += ["--seeds", seeds, *(["--resume", resume] if resume else []), *options]
        ran = subprocess.run(
            [*command, "--", str(script), *arguments],
            cwd=self.folder, capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
        if ran.returncode not in (0, 1) or not ran.stdout.strip():
            pytest.fail(f"the check could not be made:\n{ran.stderr.strip()}", pytrace=False)
        return ResumeFound(json.loads(ran.stdout))


@pytest.fixture(name=_FIXTURE)
def resume_check(request: pytest.FixtureRequest) -> ResumeCheck:
    """Return a check whose relative paths begin at the folder of the test."""
    return ResumeCheck(request.path.parent)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "bygones: trains a script several times (every test that uses bygones_resume)"
    )


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if _FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker("bygones")
