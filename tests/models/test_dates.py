"""A date is written alike under every clock, locale and time zone."""

import locale
import time
from datetime import date

import pytest

from undertow.models.dates import format_date

DAY = date(2025, 3, 9)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d %b %Y", "09 Mar 2025"),
        ("%B %d, %Y", "March 09, 2025"),
        ("%d %B %Y", "09 March 2025"),
        ("%Y-%m-%d", "2025-03-09"),
        ("%A %a %-d %H:%M:%S %p %Z", "Sunday Sun 9 00:00:00 AM UTC"),
        ("%x %X 100%%", "03/09/25 00:00:00 100%"),
        ("%s", "1741478400"),
    ],
)
def test_the_forms_of_strftime(form, text):
    assert format_date(DAY, form) == text


def test_neither_time_zone_nor_locale_matters(monkeypatch):
    forms = "%a %A %b %B %c %x %X %p %s %Z %z %r"
    expected = format_date(DAY, forms)
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue  # not installed here
            assert format_date(DAY, forms) == expected
        monkeypatch.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        assert format_date(DAY, forms) == expected
    finally:
        locale.setlocale(locale.LC_TIME, before)
        monkeypatch.undo()
        time.tzset()
