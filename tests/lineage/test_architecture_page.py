"""docs/architecture.md shows the code as it is."""

import re

from draw_architecture import PAGE, ROOT, floors, redrawn, stands_on


def test_the_drawing_is_that_of_the_imports():
    page = PAGE.read_text(encoding="utf-8")
    assert redrawn(page) == page, "type: python scripts/draw_architecture.py --write"


def test_every_arrow_points_to_a_lower_floor():
    height = {name: -number for number, floor in enumerate(floors()) for name in floor}
    arrows = [(name, below) for name in height for below in stands_on(name)]
    assert [arrow for arrow in arrows if height[arrow[1]] >= height[arrow[0]]] == []


def test_every_file_that_the_page_names_is_there():
    page = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+(?:\.py|/))`", page)
    places = (ROOT, ROOT / "src" / "undertow")
    assert len(named) > 60
    assert [path for path in named if not any((place / path).exists() for place in places)] == []
