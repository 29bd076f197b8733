"""The drawn part of docs/architecture.md: packages by floor, and what each of them stands on.

Arrows come from the imports, floors from the import-linter contract that holds them to it.

    python scripts/draw_architecture.py           print it
    python scripts/draw_architecture.py --check   exit with 1 where the page says otherwise
    python scripts/draw_architecture.py --write   put it into the page
"""

import argparse
import ast
import sys
import tomllib
from pathlib import Path

from imports import closure, imported_by, libraries, modules

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- drawn by scripts/draw_architecture.py --write -->\n"
END = "<!-- end of what is drawn -->\n"
HEAVY = {"torch", "transformers", "peft", "trl"}
WIDTH = 46


def packages() -> list[str]:
    """Names of the packages, and of modules that stand beside them."""
    names = (name.split(".") for name in modules())
    return sorted({parts[1] for parts in names if len(parts) > 1})


def floors() -> list[list[str]]:
    """The packages of each floor, the top floor first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["name"] == "floors"]
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def stands_on(package: str) -> set[str]:
    """The packages that a package imports itself."""
    found = {_package(name) for module in _inside(package) for name in imported_by(module)}
    return found - {package, ""}


def needs_torch(package: str) -> bool:
    """Whether anything that a package imports, directly or not, is built on torch."""
    reached = {name for module in _inside(package) for name in closure(module)}
    return any(libraries(name) & HEAVY for name in reached)


def purpose(package: str) -> str:
    """The first paragraph of a package's docstring."""
    tree = ast.parse(modules()[f"undertow.{package}"].read_text(encoding="utf-8"))
    return " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())


def drawing() -> str:
    """The floors with both wings, then a line a package."""
    rooms = floors()
    placed = [name for floor in rooms for name in floor]
    if lost := set(packages()) ^ set(placed):
        sys.exit(f"not both a package and on a floor of pyproject.toml: {', '.join(sorted(lost))}")
    torch = {name for name in placed if needs_torch(name)}
    lines = ["```", f"floor   {'loads models':<{WIDTH}}never does"]
    for number, floor in zip(range(len(rooms), 0, -1), rooms, strict=True):
        left = "  ".join(name for name in floor if name in torch)
        right = "  ".join(name for name in floor if name not in torch)
        lines.append(f"{number:>5}   {left:<{WIDTH}}{right}".rstrip())
    lines += ["```", "", "| package | what it is | stands on |", "|---|---|---|"]
    order = {name: place for place, name in enumerate(placed)}
    for name in placed:
        below = sorted(stands_on(name), key=order.__getitem__)
        where = modules()[f"undertow.{name}"].relative_to(ROOT)
        target = where.parent if where.name == "__init__.py" else where
        lines.append(
            f"| [{name}](../{target.as_posix()}) | {purpose(name)} | {', '.join(below) or '-'} |"
        )
    return "\n".join(lines) + "\n"


def redrawn(page: str) -> str:
    """The page with its drawn part as the imports are now."""
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        sys.exit(f"{PAGE} has lost the lines between which the drawing stands")
    return f"{before}{BEGIN}\n{drawing()}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with docs/architecture.md")
    action.add_argument("--write", action="store_true", help="write into docs/architecture.md")
    chosen = parser.parse_args()
    if not (chosen.check or chosen.write):
        print(drawing(), end="")
        return 0
    page = PAGE.read_text(encoding="utf-8")
    now = redrawn(page)
    if chosen.write:
        PAGE.write_text(now, encoding="utf-8")
    elif now != page:
        print(f"{PAGE} is out of date: python scripts/draw_architecture.py --write")
        return 1
    return 0


def _inside(package: str) -> list[str]:
    own = f"undertow.{package}"
    return [name for name in modules() if name == own or name.startswith(f"{own}.")]


def _package(module: str) -> str:
    return module.removeprefix("undertow").removeprefix(".").split(".")[0]


if __name__ == "__main__":
    sys.exit(main())
