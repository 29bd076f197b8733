"""A date in strftime's forms, the same under every locale and time zone."""

import re
from datetime import date, datetime

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
LOCAL = {"%c": "%a %b %e %H:%M:%S %Y", "%x": "%m/%d/%y", "%X": "%H:%M:%S", "%r": "%I:%M:%S %p"}
"""What the C library writes by the locale, in the form of the C locale."""


def format_date(day: date, form: str) -> str:
    """`form` as strftime writes it at midnight UTC of `day`, with English names."""
    moment = datetime(day.year, day.month, day.day)
    names = {
        "%A": DAYS[day.weekday()],
        "%a": DAYS[day.weekday()][:3],
        "%B": MONTHS[day.month - 1],
        "%b": MONTHS[day.month - 1][:3],
        "%h": MONTHS[day.month - 1][:3],
        "%p": "AM",
        "%P": "am",
        "%Z": "UTC",
        "%z": "+0000",
        "%s": str((day - date(1970, 1, 1)).days * 86400),
        "%%": "%",
    }

    def written(match: re.Match[str]) -> str:
        directive = match[0]
        if directive in LOCAL:
            return re.sub(DIRECTIVE, written, LOCAL[directive])
        return names[directive] if directive in names else moment.strftime(directive)

    return re.sub(DIRECTIVE, written, form)


DIRECTIVE = re.compile(r"%[-_0^#]?[a-zA-Z%]")
