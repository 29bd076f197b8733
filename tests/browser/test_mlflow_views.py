"""MLflow's own pages, in a real browser, draw what the seeded views ask for."""

import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import make_study
from undertow.tracking import links, sync, ui_command

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1700,1300",
    "--virtual-time-budget=60000",
    "--enable-logging=stderr",
]
# A line that is drawn: a path through at least two points, in a colour that can be seen.
DRAWN = re.compile(r'class="js-line" d="M[^"]*L[^"]*"[^>]*stroke-opacity: 1')

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The seeded links by label, served from a synthetic study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        study = make_study(tmp_path_factory.mktemp("study"))
        sync(study.params, study.layout, study.summary, study.grid)
        port = _free_port()
        base = f"http://127.0.0.1:{port}"
        command, environment = ui_command(study.layout, port)
        with subprocess.Popen(command, env=environment, cwd=study.layout.root) as server:
            try:
                _wait_for(f"{base}/health")
                yield {link.label: link.url for link in links(study.params, study.layout, base)}
            finally:
                server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(url)


def _render(url: str, profile: Path) -> str:
    """The page as the browser has it after a minute of its own time."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert "Uncaught" not in done.stderr
    return done.stdout


def test_the_strength_view_draws_a_line_for_every_model(
    pages: dict[str, str], tmp_path: Path
) -> None:
    page = _render(pages["tau against strength"], tmp_path)
    assert "Error loading shared view state" not in page
    assert "strength_tau_margin" in page and "mean and range over seeds" in page
    # Two models in each of the two charts of shifts that fit the first screen.
    assert len(DRAWN.findall(page)) >= 4


def test_the_cells_view_draws_scatter_and_parallel_coordinates(
    pages: dict[str, str], tmp_path: Path
) -> None:
    page = _render(pages["Cells compared"], tmp_path)
    assert "margin_teacher_shift vs. margin_student_shift" in page
    assert len(re.findall(r'class="point ', page)) >= 16
    assert "parcoords" in page


def test_the_runs_table_shows_the_columns_that_matter(
    pages: dict[str, str], tmp_path: Path
) -> None:
    page = _render(pages["Runs table"], tmp_path)
    assert "smollm2-135m trait_1 seed0" in page
    assert all(f">{column}<" in page for column in ("strength", "tau", "tau_low", "tau_margin"))
