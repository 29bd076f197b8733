"""What the experiment opens on: its description, and views of table and charts.

The view format is MLflow's own and undocumented: an experiment tag that the UI's "share" button
writes. Where a later version stops reading it, the links still open the plain pages.
"""

import base64
import json
import time
import zlib
from typing import Any, NamedTuple

from undertow.study.files import fingerprint
from undertow.study.layout import Study
from undertow.tracking.metrics import OVER_STRENGTH, x_of
from undertow.tracking.store import Store, open_store, usable, warn

SHARED_VIEW = "mlflow.sharedViewState."
SECTION = "undertow"
RUN_NAME = "attributes.`Run Name`"
DESCRIPTION = """\
**Undertow: what a student inherits from its teacher through benign data.**

`tau = (student - control) / (teacher - base)`: the share of the teacher's shift that came across, \
corrected for what fine-tuning on benign answers does by itself. 0 is nothing, 1 is all of it.

How to read this:

- Tag `kind`: `cell` is one model, arm and seed; `curve` is one model and seed over strengths \
(charts take `strength_tau` as x for `tau`, and so on); `study` has the report as an artifact; \
`student` is a student of another recipe or a later round (tags `recipe`, `round`, `defence`, \
`placebo_of`); `recipe` is one model and recipe over strengths, `rounds` one chain over rounds.
- `current = yes` marks the runs of the results as they are now; earlier ones stay for comparison.
- `tau` counts verdicts, `tau_margin` averages log-odds; `_low` and `_high` end the interval.
- A cell without `tau` has none: the teacher did not clearly move. The tag `tau.reason` says so.
- `tau_naive` leaves out the control; arms named `random_` have a direction of equal norm.

Saved views (`python cli.py ui` prints their links):

- *Transfer line*: the student's shift over the teacher's, a line per model; beside it the line of \
the pooled tau (`margin_line`) and the diagonal (`margin_teacher_shift`), on which all came across.
- *tau against strength*: a line per model, the mean over seeds, with their range as a band. The \
band is no interval: look that up in the report before two lines are called apart.
- *Cells compared*: teacher shift against student shift, a point per cell (on the diagonal all \
came across), the same as parallel coordinates, and the cells' metrics side by side.
- *Recipes compared*: what each removes against what its students still learn, a point per recipe.
- *Runs table*: every cell with tau and its interval.

The runs are a view of the results files: `python cli.py track sync` rebuilds them.
"""


class View(NamedTuple):
    """A saved view: `state` is what MLflow's UI keeps of a page."""

    id: str
    name: str
    mode: str
    state: dict[str, Any]


class Link(NamedTuple):
    label: str
    url: str


def views() -> list[View]:
    return [_transfer_view(), _tau_view(), _cells_view(), _recipes_view(), _table_view()]


def seed_experiment(store: Store) -> None:
    """Set description and views, once per version of them: edits made in the UI survive a sync."""
    from mlflow.exceptions import MlflowException

    seeded = {
        "mlflow.note.content": DESCRIPTION,
        "mlflow.experimentKind": "custom_model_development",
        **{f"{SHARED_VIEW}{view.id}": _envelope(view) for view in views()},
    }
    version = fingerprint(DESCRIPTION, [list(view) for view in views()])
    tags = store.client.get_experiment(store.experiment_id).tags
    if tags.get("undertow.views") == version and seeded.keys() <= tags.keys():
        return
    try:
        for name, value in seeded.items():
            store.client.set_experiment_tag(store.experiment_id, name, value)
        store.client.set_experiment_tag(store.experiment_id, "undertow.views", version)
    except MlflowException as error:
        warn(f"runs are complete, but the chart views were refused: {error}")


def links(study: Study, base_url: str) -> list[Link]:
    """Addresses to open: the views that the store has, then the plain experiment."""
    params = study.params
    if not usable(params):
        return []
    store = open_store(study)
    tags = store.client.get_experiment(store.experiment_id).tags
    # Without the workflow type MLflow 3 opens on its pages for language model traces.
    runs = (
        f"{base_url.rstrip('/')}/#/experiments/{store.experiment_id}/runs"
        "?workflowType=machine_learning"
    )
    found = [
        Link(view.name, f"{runs}&compareRunsMode={view.mode}&viewStateShareKey={view.id}")
        for view in views()
        if f"{SHARED_VIEW}{view.id}" in tags
    ]
    return [*found, Link("All runs", runs)]


def _transfer_view() -> View:
    charts = [
        _line(
            ["margin_student_shift", "margin_line", "margin_teacher_shift"], "margin_teacher_shift"
        ),
        _line(["student_shift", "line", "teacher_shift"], "teacher_shift"),
    ]
    state = _charts("Student's shift over the teacher's: students, pooled tau, diagonal", charts)
    return View("undertow-line", "Transfer line", "CHART", state | _by_model())


def _tau_view() -> View:
    charts = [_line([metric], x_of(metric)) for metric in OVER_STRENGTH]
    state = _charts("Transfer against strength (mean and range over seeds)", charts)
    return View("undertow-tau", "tau against strength", "CHART", state | _by_model())


def _by_model() -> dict[str, Any]:
    """Curves, those of a model's seeds as their mean."""
    grouping = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "model"}],
    }
    return {"groupBy": grouping, **_current("curve")}


def _cells_view() -> View:
    charts = [
        _card("SCATTER", "rates")
        | {"xaxis": _axis("teacher_shift"), "yaxis": _axis("student_shift")},
        _card("SCATTER", "margins")
        | {"xaxis": _axis("margin_teacher_shift"), "yaxis": _axis("margin_student_shift")},
        _card("PARALLEL", "cells")
        | {
            "selectedParams": ["model"],
            "selectedMetrics": ["strength", "margin_teacher_shift", "margin_student_shift"],
            "showAllRuns": False,
        },
        _card("DIFFERENCE", "cells")
        | {
            "compareGroups": ["Model metrics"],
            "chartName": "Cells side by side",
            "showChangeFromBaseline": False,
            "showDifferencesOnly": True,
            "baselineColumnUuid": "",
        },
    ]
    state = _charts("Cells", charts) | _current("cell")
    return View("undertow-cells", "Cells compared", "CHART", state)


def _recipes_view() -> View:
    charts = [
        _card("SCATTER", "worth") | {"xaxis": _axis("learned"), "yaxis": _axis("removed_margin")},
        _card("SCATTER", "taus") | {"xaxis": _axis("removed"), "yaxis": _axis("removed_margin")},
        _card("PARALLEL", "recipes")
        | {
            "selectedParams": ["model", "recipe"],
            "selectedMetrics": ["tau_margin", "removed_margin", "learned", "seconds"],
            "showAllRuns": False,
        },
    ]
    state = _charts("Recipes at their largest strength", charts) | _current("recipe")
    return View("undertow-recipes", "Recipes compared", "CHART", state)


def _table_view() -> View:
    metrics = (
        "strength",
        "tau",
        "tau_low",
        "tau_high",
        "tau_margin",
        "teacher_rate",
        "student_rate",
        "control_rate",
        "seconds",
    )
    columns = [f"metrics.`{name}`" for name in metrics]
    state = {
        "selectedColumns": [*columns, "attributes.`Version`"],
        "columnOrder": [RUN_NAME, *columns],
        "columnWidths": {RUN_NAME: 280} | dict.fromkeys(columns, 110),
        "runsHiddenMode": "SHOW_ALL",
        **_current("cell"),
    }
    return View("undertow-table", "Runs table", "TABLE", state)


def _current(kind: str) -> dict[str, Any]:
    """Which runs a view shows, and in which order."""
    return {
        "searchFilter": f"tags.kind = '{kind}' and tags.current = 'yes'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
    }


def _charts(section: str, charts: list[dict[str, Any]]) -> dict[str, Any]:
    """A chart page with our section open, and below it MLflow's own, folded."""
    return {
        "compareRunCharts": charts,
        "compareRunSections": [
            _section(SECTION, section, display=True),
            # MLflow adds a chart for every other metric to the section of this name.
            _section("other", "Model metrics", display=False),
        ],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
    }


def _section(id: str, name: str, *, display: bool) -> dict[str, Any]:
    return {
        "uuid": id,
        "name": name,
        "display": display,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
        "cardHeight": 360,
    }


def _card(kind: str, subject: str) -> dict[str, Any]:
    return {
        "uuid": f"{SECTION}-{kind}-{subject}",
        "type": kind,
        "runsCountToCompare": 100,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
    }


def _line(metrics: list[str], x: str) -> dict[str, Any]:
    return _card("LINE", f"{metrics[0]}-over-{x}") | {
        "metricKey": metrics[0],
        "selectedMetricKeys": metrics,
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": x,
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "displayPoints": True,
        "ignoreOutliers": False,
        "range": {},
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _envelope(view: View) -> str:
    # Servers on other databases keep 5000 characters of a tag.
    packed = base64.b64encode(zlib.compress(json.dumps(view.state).encode(), 9)).decode()
    now = int(time.time() * 1000)
    return json.dumps(
        {"name": view.name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    )
