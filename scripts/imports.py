"""Which module of src/undertow imports which, read from the source without running any of it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"


@cache
def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Dotted name -> file, of every module and package."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imported_by(module: str) -> frozenset[str]:
    """Modules that a module imports, in its functions too; not what only type checkers read.

    `from package import name` is the module of that name where there is one, else the package's
    own `__init__`. An `__init__` on the way to a module is run and not used: it does not count.
    """
    return frozenset(name for name in _named(module) if name in modules() and name != module)


def libraries(module: str) -> set[str]:
    """Names of what a module imports from elsewhere, Python's own modules included."""
    return {name.split(".")[0] for name in _named(module) if name not in modules()}


@cache
def _named(module: str) -> frozenset[str]:
    known = modules()
    tree = ast.parse(known[module].read_text(encoding="utf-8"))
    found = set()
    for node in _run(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def closure(module: str) -> set[str]:
    """A module and all that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported_by(name)
    return found


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)
