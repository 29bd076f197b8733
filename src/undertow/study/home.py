"""Libraries that want to know the user's home folder, for users who have none.

Containers often run as a user without an entry in /etc/passwd, with HOME unset.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def any_home() -> Iterator[None]:
    """Import here what asks for a home folder and needs none, as Altair and MLflow do.

    Where the user has no home, HOME names a folder that does not exist meanwhile, so that
    nothing can be written there.
    """
    if has_home():
        yield
        return
    os.environ["HOME"] = "/nonexistent"
    try:
        yield
    finally:
        del os.environ["HOME"]


def has_home() -> bool:
    """Whether HOME or /etc/passwd names a home folder; it may not be there."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True
