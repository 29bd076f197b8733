"""A chart's SVG as a reader counts it: marks by the name of their layer."""

from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


class Drawn:
    """One panel, or a whole picture."""

    def __init__(self, svg: str | ElementTree.Element) -> None:
        self.root = svg if isinstance(svg, ElementTree.Element) else ElementTree.fromstring(svg)

    def groups(self, name: str) -> list[ElementTree.Element]:
        return [g for g in self.root.iter(f"{SVG}g") if name in g.get("class", "").split()]

    def marks(self, name: str) -> list[ElementTree.Element]:
        """The marks of a layer; in a facet its name follows that of the panel."""
        return [mark for group in self.groups(f"{name}_marks") for mark in group]

    def texts(self, group: str) -> list[str]:
        return ["".join(text.itertext()) for found in self.groups(group) for text in found]

    @property
    def panels(self) -> list["Drawn"]:
        """Those of a facet, row after row."""
        return [Drawn(panel) for found in self.groups("cell") for panel in found]

    def count(self, *names: str) -> dict[str, int]:
        return {name: len(self.marks(name)) for name in names}


def place(mark: ElementTree.Element) -> tuple[float, float]:
    """Where a symbol or a word stands, in pixels of its panel."""
    inside = mark.get("transform", "").split("(")[1].split(")")[0]
    x, y = map(float, inside.split(","))
    return x, y
