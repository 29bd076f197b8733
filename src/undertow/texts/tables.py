"""Rows of text as columns for a terminal or as a Markdown table, and paragraphs of a width."""

import textwrap
from collections.abc import Callable, Iterable, Sequence

from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

# Within a line of 100 columns, with room for a prompt or a quotation mark.
WIDTH = 98


def _rule(widths: list[int], alignments: list[str]) -> str:
    return "|" + " --- |" * len(widths)


def _format(
    rule: Line | Callable[[list[int], list[str]], str], begin: str, gap: str, end: str
) -> TableFormat:
    row = DataRow(begin, gap, end)
    return TableFormat(
        lineabove=None,
        linebelowheader=rule,
        linebetweenrows=None,
        linebelow=None,
        headerrow=row,
        datarow=row,
        padding=0,
        with_header_hide=None,
    )


COLUMNS = _format(Line("", "-", "  ", ""), "", "  ", "")
MARKDOWN = _format(_rule, "| ", " | ", " |")


def columns(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, indent: int = 0
) -> list[str]:
    """Lines of a table under a ruled head: `left` columns to the left, the others to the right.

    Blanks at the start of a cell stay, so that cells which were aligned before stay aligned.
    """
    aligned = ["left"] * left + ["right"] * (len(head) - left)
    # The head goes in as a row: as headers it would be padded, and the columns with it.
    table = tabulate(
        [head, SEPARATING_LINE, *rows],
        tablefmt=COLUMNS,
        colalign=aligned,
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return [f"{' ' * indent}{line}".rstrip() for line in table.split("\n")]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without padding; its cells must hold no bare | and no line break."""
    return tabulate(
        list(rows), head, tablefmt=MARKDOWN, disable_numparse=True, stralign=None, numalign=None
    )


def wrapped(text: str, *, indent: int = 0, hang: int = 0) -> list[str]:
    """Lines of at most WIDTH columns, `hang` columns further in from the second on."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
    )
