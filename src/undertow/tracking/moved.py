"""A local store that was made elsewhere: artifacts belong beside the database that lists them.

MLflow keeps absolute places of artifacts. In a checkout that was copied they are the original's,
in one that was moved they are folders that should not be there again.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = {"experiments": "artifact_location", "runs": "artifact_uri"}


def adopt(database: Path) -> None:
    """Let every artifact that a store's database lists lie in the folder artifacts beside it.

    Only places of the form .../<name of its folder>/artifacts are rewritten: these were derived
    from where the database lay. A place that somebody has chosen stays. Call it under the
    store's lock and before MLflow opens the database.
    """
    if not database.exists():
        return
    own = (database.parent / "artifacts").as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        for old in _elsewhere(connection, own):
            for table, column in TABLES.items():
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) "
                    f"where {column} = ? or substr({column}, 1, ?) = ?",
                    (own, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def _elsewhere(connection: sqlite3.Connection, own: str) -> list[str]:
    """Places of experiments that end like this store's own and are not it."""
    known = connection.execute("select name from sqlite_master where name = 'experiments'")
    if known.fetchone() is None:
        return []
    ending = "/" + "/".join(own.split("/")[-2:])
    found = connection.execute("select distinct artifact_location from experiments").fetchall()
    return [
        place
        for (place,) in found
        if place and place.startswith("file:") and place.endswith(ending) and place != own
    ]
