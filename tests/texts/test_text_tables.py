"""Columns, Markdown tables and paragraphs: widths, blanks and empty tables."""

from undertow.texts.tables import WIDTH, columns, markdown_table, wrapped


def test_columns_are_as_wide_as_their_widest_cell_and_keep_leading_blanks() -> None:
    lines = columns(("arm", "tau"), [("a", " 0.5 [ 0.4]"), ("longer", "")], indent=2)
    assert lines == [
        "  arm             tau",
        "  ------  -----------",
        "  a        0.5 [ 0.4]",
        "  longer",
    ]


def test_columns_stand_left_as_far_as_asked_and_numbers_stay_text() -> None:
    assert columns(("a", "b", "c"), [("x", "yes", "1.50"), ("y", "1", "10")], left=2) == [
        "a  b       c",
        "-  ---  ----",
        "x  yes  1.50",
        "y  1      10",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert columns(("a", "b"), []) == ["a  b", "-  -"]
    assert markdown_table(("a", "b"), []) == "| a | b |\n| --- | --- |"


def test_a_markdown_table_adds_no_padding_and_keeps_numbers_as_written() -> None:
    table = markdown_table(("key", "before"), [("grid.seeds", "007"), ("x", ""), ("1e3", "-0.0")])
    assert table.splitlines() == [
        "| key | before |",
        "| --- | --- |",
        "| grid.seeds | 007 |",
        "| x |  |",
        "| 1e3 | -0.0 |",
    ]


def test_paragraphs_stay_within_the_width_and_hang() -> None:
    lines = wrapped("some-words " * 40, indent=2, hang=3)
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("  some-words") and lines[1].startswith("     some-words")
