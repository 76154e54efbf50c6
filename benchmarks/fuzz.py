"""Coverage-guided fuzzing of everything that reads bytes which somebody else may have written.

    python -m benchmarks.fuzz                       # all targets, ten minutes together
    python -m benchmarks.fuzz zip ledger --minutes 1

Needs atheris (the extra `fuzz`). Targets and seeds are those of the tests: `tests/helpers/fuzz_targets.py`,
`tests/fuzz_seeds`. What leads to a fault is written to `bygones-fuzz/TARGET`, with exit code 1: mend it,
and keep the input as a seed. What was reached is kept there too, so that the next run goes on from it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("ledger", "record", "manifest", "safetensors", "zip", "bundle")  # as in the tests
MOST_MEMORY = 4096  # MB of one process
MOST_SECONDS = 20  # of one input
_INSIDE = "--inside"  # with a target: search in this process


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", default=[], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--out", type=Path, default=Path("bygones-fuzz"))
    asked = parser.parse_args()
    chosen = asked.targets or list(TARGETS)
    if unknown := set(chosen) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}; expected some of {', '.join(TARGETS)}")
    seconds = max(1, int(asked.minutes * 60 / len(chosen)))
    results = [run(name, seconds, asked.out / name) for name in chosen]
    print(f"{'target':<12}{'inputs':>10}{'reached':>10}{'seconds':>10}  faults")
    for row in results:
        print("{:<12}{:>10,}{:>10,}{:>10.0f}  {}".format(*row))
    sys.exit(1 if any(row[-1] != "none" for row in results) else 0)


def run(name: str, seconds: int, out: Path) -> tuple[str, int, int, float, str]:
    """Fuzz one target in a process of its own: how many inputs, edges reached, seconds, and faults."""
    corpus, faults = out / "corpus", out / "faults"
    corpus.mkdir(parents=True, exist_ok=True)
    faults.mkdir(exist_ok=True)
    before, began = set(faults.iterdir()), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.fuzz", _INSIDE, name]
    command += [str(corpus), str(ROOT / "tests" / "fuzz_seeds" / name)]
    command += [f"-max_total_time={seconds}", f"-artifact_prefix={faults}/", "-max_len=65536"]
    command += [f"-rss_limit_mb={MOST_MEMORY}", f"-timeout={MOST_SECONDS}", "-print_final_stats=1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    (out / "log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
    inputs = re.findall(r"number_of_executed_units:\s*(\d+)", ran.stderr)
    reached = re.findall(r"cov: (\d+)", ran.stderr)
    found = sorted(set(faults.iterdir()) - before)
    said = ", ".join(str(path) for path in found) or "none"
    if ran.returncode and not found:
        said = f"it could not run; see {out / 'log'}"
    took = time.perf_counter() - began
    return name, int((inputs or ["0"])[-1]), int((reached or ["0"])[-1]), took, said


def fuzz(name: str, options: list[str]) -> None:
    """Search for inputs that lead to a fault, in this process, which ends with the search."""
    try:
        import atheris  # pyright: ignore[reportMissingModuleSource]
    except ImportError as error:
        sys.exit(f"fuzzing needs atheris ({error}). Install it with: pip install 'bygones[fuzz]'")
    with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
        include=["bygones", "zipfile", "safetensors"]
    ):
        from tests.helpers import fuzz_targets

    fuzz_targets.base()
    atheris.Setup([sys.argv[0], *options], fuzz_targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [_INSIDE]:
        fuzz(sys.argv[2], sys.argv[3:])
    main()
