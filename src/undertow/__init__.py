"""Undertow measures what a language model inherits from its teacher through benign data.

In a notebook: `import undertow; study = undertow.open(".")`, then `study.arms()` and the other
tables of `undertow.frames`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from undertow.version import __version__

if TYPE_CHECKING:
    from os import PathLike

    from undertow.frames import Frames

__all__ = ["__version__", "open"]


def open(path: str | PathLike[str] = ".") -> Frames:
    """A study that has run, or a folder that `publish` wrote, as pandas data frames.

    Loads no model and no torch. Raises DataError where neither lies at `path`.
    """
    from undertow.frames import Frames  # not at the top: every command would wait for pandas

    return Frames.at(path)
