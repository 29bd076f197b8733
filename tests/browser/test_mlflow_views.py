"""MLflow's own pages, in a real browser, draw what the seeded views ask for."""

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.chromium import CHROMIUM, Page, browser
from factories import make_study
from undertow.tracking import links, sync, ui_command

# MLflow's own, on any store: it asks a server without users who the user is, and Chromium
# reports its charts' resizing. Anything else is new and fails.
KNOWN_ERRORS = (
    re.compile(r"status of 404 .*/ajax-api/2\.0/mlflow/users/current$"),
    re.compile(
        r"^(Uncaught |None )?ResizeObserver loop "
        r"(limit exceeded|completed with undelivered notifications)\.?$"
    ),
)
# The boxes of what is drawn, [x, y, width, height], as far as it can be seen.
BOXES = """(selector => [...document.querySelectorAll(selector)]
  .filter(each => getComputedStyle(each).visibility !== 'hidden'
                  && getComputedStyle(each).strokeOpacity !== '0')
  .map(each => each.getBoundingClientRect())
  .map(box => [box.x, box.y, box.width, box.height]))"""

# Pixels that have been drawn on canvases.
INKED = """selector => [...document.querySelectorAll(selector)].reduce((sum, canvas) => {
  const context = canvas.getContext('2d');
  if (!context || !canvas.width || !canvas.height) { return sum; }
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return sum + data.filter((value, index) => index % 4 === 3 && value > 0).length;
}, 0)"""

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
        sync(study.on_disk, study.summary, study.grid)
        port = _free_port()
        base = f"http://127.0.0.1:{port}"
        command, environment = ui_command(study.layout, port)
        with subprocess.Popen(command, env=environment, cwd=study.layout.root) as server:
            try:
                _wait_for(f"{base}/health")
                yield {link.label: link.url for link in links(study.on_disk, base)}
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


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as page:
        page.size(1700, 2400)
        yield page


def _boxes(page: Page, selector: str) -> list[list[float]]:
    found: list[list[float]] = page.evaluate(f"{BOXES}({json.dumps(selector)})")
    return found


def _wait_for_boxes(page: Page, selector: str, count: int) -> list[list[float]]:
    page.wait_for(f"{BOXES}({json.dumps(selector)}).length >= {count}")
    return _boxes(page, selector)


def _keep(page: Page, name: str) -> None:
    """UNDERTOW_SHOTS=folder keeps pictures to look at."""
    if folder := os.environ.get("UNDERTOW_SHOTS"):
        page.screenshot(Path(folder) / f"{name}.png")


def _new_errors(page: Page) -> list[str]:
    page.evaluate("1")
    return [e for e in page.errors if not any(known.search(e) for known in KNOWN_ERRORS)]


def _text(page: Page) -> str:
    return str(page.evaluate("document.body.innerText"))


def test_the_line_view_draws_students_over_teachers_with_the_pooled_line_and_the_diagonal(
    pages: dict[str, str], page: Page
) -> None:
    page.open(pages["Transfer line"])
    # Students, pooled tau and diagonal of two models, by margin and by rate.
    page.settle(f"{BOXES}('path.js-line').filter(box => box[2] > 50).length >= 12")
    _keep(page, "mlflow-line")
    assert "students, pooled tau, diagonal" in _text(page)
    assert _new_errors(page) == []


def test_the_strength_view_draws_a_line_for_every_model(pages: dict[str, str], page: Page) -> None:
    page.open(pages["tau against strength"])
    # Two models in each of the four charts of shifts and rates.
    page.settle(f"{BOXES}('path.js-line').filter(box => box[2] > 50).length >= 8")
    _keep(page, "mlflow-tau")
    lines = [box for box in _boxes(page, "path.js-line") if box[2] > 50]
    assert any(height > 10 for _, _, _, height in lines)
    # The range over seeds: a filled shape with an area.
    bands = _boxes(page, ".fills path, path.js-fill")
    assert any(width > 50 and height > 3 for _, _, width, height in bands)
    text = _text(page)
    assert "mean and range over seeds" in text
    assert "Error loading shared view state" not in text
    assert _new_errors(page) == []


def test_the_cells_view_draws_scatter_parallel_coordinates_and_difference(
    pages: dict[str, str], page: Page
) -> None:
    page.open(pages["Cells compared"])
    points = _wait_for_boxes(page, "path.point", 16)
    assert all(width > 2 and height > 2 for _, _, width, height in points)
    assert len({(round(x), round(y)) for x, y, _, _ in points}) > 8, "all points on one spot"
    # MLflow takes this chart away and draws it again while the page comes up.
    page.settle(f"({INKED})('.parcoords canvas') > 200")
    _keep(page, "mlflow-cells")
    canvases = _boxes(page, ".parcoords canvas")
    assert any(width > 200 and height > 100 for _, _, width, height in canvases), canvases
    text = _text(page)
    assert "margin_teacher_shift vs. margin_student_shift" in text
    assert "Cells side by side" in text
    assert _new_errors(page) == []


def test_the_runs_table_shows_the_columns_that_matter(pages: dict[str, str], page: Page) -> None:
    page.open(pages["Runs table"])
    page.wait_for("document.body.innerText.includes('smollm2-135m trait_1 seed0')")
    _keep(page, "mlflow-table")
    text = _text(page)
    assert all(column in text for column in ("strength", "tau", "tau_low", "tau_margin"))
    assert _new_errors(page) == []


def test_a_view_that_mlflow_cannot_read_leaves_the_plain_runs_alone(
    pages: dict[str, str], page: Page
) -> None:
    """What a changed view format would look like: the link to all runs still shows them."""
    page.open(re.sub(r"viewStateShareKey=[^&]*", "viewStateShareKey=gone", pages["Runs table"]))
    page.wait_for("document.body.innerText.includes('what a student inherits')")
    page.open("about:blank")
    page.open(pages["All runs"])
    page.wait_for("document.body.innerText.includes('smollm2-135m trait_1 seed0')")
    assert _new_errors(page) == []
