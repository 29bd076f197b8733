"""The templates of `dvc plots`, from the layers that the report is drawn with.

python -m undertow.report.charts.templates writes .dvc/plots/; run it after a change of a layer.
DVC puts its rows, which are those of results/plots/*.csv and hold text, in place of <DVC_METRIC_
DATA>, and shows a column per model and a colour per revision.
"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from undertow.findings.numbers import READOUTS
from undertow.report.charts.figure import EXACT
from undertow.report.charts.layers import Bounds, Ink, Place, line
from undertow.report.charts.rates import RANDOM_STUDENT, percent_axis, rate_layers
from undertow.report.charts.tau import ROOM, tau_layers
from undertow.study.files import write_text
from undertow.study.layout import find_root

# `dvc plots show` brings Vega-Lite 5.2.
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
X, Y, DATA, COLOUR = (f"<DVC_METRIC_{name}>" for name in ("X", "Y", "DATA", "COLOR"))
X_LABEL, Y_LABEL, TITLE = (f"<DVC_METRIC_{name}>" for name in ("X_LABEL", "Y_LABEL", "TITLE"))
# A teacher that is not steered has no place on an axis of strengths.
STEERED = "datum.direction !== ''"
CONFIG = {
    "axisX": {"grid": False, "labelFlush": False},
    "style": {
        "guide": {"color": "#888", "strokeDash": [5, 3]},
        "gap": {"color": "#888", "strokeDash": [1, 4]},
        "note": {"color": "#888"},
    },
}


def templates() -> dict[str, str]:
    """The files of .dvc/plots by name."""
    built = {"tau": _tau(), "rates": _rates(), "loss": _loss()}
    return {
        f"undertow_{name}.json": json.dumps(spec, indent=1, ensure_ascii=False) + "\n"
        for name, spec in built.items()
    }


def _tau() -> dict[str, Any]:
    layers = tau_layers(_place(), _ink("readout"), Bounds("datum.bottom", "datum.top"), ("rev",))
    chart = _faceted(layers, ("readout", READOUTS), 220, series="datum.direction")
    chart = chart.transform_filter(STEERED).transform_joinaggregate(least="min(y)", most="max(y)")
    chart = chart.transform_calculate(
        bottom=f"min(0, datum.least) - {ROOM}",
        top=f"max(1, datum.most) + {ROOM}",
        gap="!isValid(datum.y) && datum.direction === 'trait' ? 'undefined' : null",
    )
    return _spec(
        chart,
        "Transfer ratio against strength with intervals: a column per model, a row per readout, a "
        "colour per revision. 0 is no transfer, 1 is all of the teacher's shift.",
    )


def _rates() -> dict[str, Any]:
    place = _place(percent_axis(Y_LABEL))
    layers = rate_layers(place, _ink("subject", "scored"), Bounds("0", "1"), ("rev",))
    series = f"datum.direction === 'random' ? '{RANDOM_STUDENT.name}' : datum.subject"
    chart = _faceted(layers, ("subject", ("teacher", "student")), 180, series)
    return _spec(
        chart.transform_filter(STEERED),
        "Rates of teacher and student against strength with Wilson intervals: a column per model, "
        "a row per subject, a colour per revision.",
    )


def _loss() -> dict[str, Any]:
    colour = alt.Color("arm:N", scale=alt.Scale(scheme="tableau10"))
    place = Place(alt.X("x:Q", title=X_LABEL), alt.Y("y:Q", title=Y_LABEL))
    layers = [line(place, Ink(colour, ()), "true", "curves", ("cell",))]
    return _spec(
        _faceted(layers, ("rev", ()), 200, series="datum.arm"),
        "Training loss of every student: a column per model, a row per revision, a colour per "
        "arm, a line per seed.",
    )


def _place(axis: alt.Axis | None = None) -> Place:
    scale = alt.Scale(zero=False, padding=16)
    return Place(
        alt.X("x:Q", title=X_LABEL, scale=scale, axis=alt.Axis(format=EXACT)),
        alt.Y("y:Q", title=Y_LABEL, axis=axis or alt.Axis()),
    )


def _ink(*told: str) -> Ink:
    """A colour per revision, a shape per direction; fields to tell of beside the usual ones."""
    shapes = alt.Scale(domain=["trait", "random"], range=["circle", "diamond"])
    tooltip = [alt.Tooltip(f"{f}:N") for f in ("rev", "model", "arm", *told, Y, "low", "high")]
    colour = alt.Color(f"{COLOUR}:N")
    return Ink(colour, (colour, alt.Shape("direction:N", scale=shapes), tooltip))


def _faceted(
    layers: list[alt.Chart], row: tuple[str, Sequence[str]], height: int, series: str
) -> alt.FacetChart:
    """A panel per model and value of a field over the rows of a CSV file, which hold text.

    row: the field and the order of its values; without one they are sorted, as models are. Vega
    can also keep the order of the data, but then it fills the panels in that order too, whatever
    is written over them.
    """
    chart = alt.layer(*layers).properties(width=320, height=height)
    field, order = row
    sort = list(order) if order else "ascending"
    return (
        chart.facet(
            data=alt.InlineData(values=DATA),
            column=alt.Column("model:N", title=None),
            row=alt.Row(f"{field}:N", title=None, sort=sort),
        )
        .transform_calculate(
            x=f"toNumber(datum['{X}'])",
            y=_number(Y),
            y_low=_number("low"),
            y_high=_number("high"),
            series=series,
        )
        .properties(title=alt.TitleParams(TITLE, anchor="start"))
    )


def _number(field: str) -> str:
    value = f"datum['{field}']"
    return f"isValid({value}) && {value} !== '' ? toNumber({value}) : null"


def _spec(chart: alt.FacetChart, description: str) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(description=description).to_dict()
    spec.pop("datasets")  # Altair's way to keep data apart; DVC's is what everybody reads
    spec |= {"$schema": SCHEMA, "data": {"values": DATA}, "config": CONFIG}
    filled: dict[str, Any] = _colour_filled(spec)
    return filled


def _colour_filled(value: Any) -> Any:
    """DVC replaces its placeholder for colour by a whole encoding, not by a field of one."""
    if isinstance(value, dict):
        if value.get("field") == COLOUR:
            return COLOUR
        return {key: _colour_filled(each) for key, each in value.items()}
    return [_colour_filled(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    for name, text in templates().items():
        write_text(find_root() / ".dvc" / "plots" / name, text)


if __name__ == "__main__":
    main()
