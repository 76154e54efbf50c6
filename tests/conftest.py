"""One thread for every test, as the numeric contract of a study has it; and what several files use."""

import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import settings
from tests.helpers.commands import PATIENT_RAY, Commands, ask, start_server, stop_server

from bygones.publish.report import svg

torch.set_num_threads(1)
settings.register_profile(
    "any machine", deadline=None
)  # a loaded machine is no fault of an example
settings.load_profile("any machine")

# Where the tests run in the background Ctrl-C may be ignored, and every process that they start would
# inherit that: jobs that are cancelled by it would go on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore_glob = ["specimens/*"]  # scripts: the collector would run them in search of doctests


@pytest.fixture
def page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that read a report's page and tables: figures are drawn, but not written to files."""

    monkeypatch.setattr(svg, "save_figure", lambda figure, folder, name: svg.to_svg(figure, name))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray cluster on two cores of this machine, as `Ray` starts and ends it: one for all tests."""
    ray = pytest.importorskip("ray", reason="needs bygones[ray]")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of sockets in it must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)  # else Ray keeps one in the home folder
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in PATIENT_RAY.items():
            patch.setenv(name, value)
        with ExitStack() as session:
            start_ray(ray, session)
            assert ray.is_initialized()
            yield
    assert not ray.is_initialized()
    shutil.rmtree(folder)


def start_ray(ray: Any, session: ExitStack) -> None:
    """Start a session of Ray; retry where a busy machine makes its own startup time out."""
    from bygones.study.executors import Ray

    for _ in range(5):
        try:
            session.enter_context(Ray(num_workers=2)._session(ray))
            return
        except Exception as error:  # Ray raises no kind of its own
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise TimeoutError("Ray did not start in five times half a minute.")


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    """The warm process that commands are forked from."""
    process = start_server()
    yield process
    stop_server(process)


@pytest.fixture(scope="session")
def commands(server: subprocess.Popen[str]) -> Commands:
    """Runs a command of `bygones` in a folder, from a warm process: `commands(folder, *arguments)`."""
    return lambda folder, *arguments: ask(server, folder, *arguments)
