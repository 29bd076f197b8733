"""MLflow as a view of the results files.

Everything here can be deleted and rebuilt by `sync`; nothing else in Undertow reads it. MLflow is
imported only when a run is written, so this package imports where MLflow is not installed.
"""

from undertow.tracking.store import TrackingError, own_ui, ui_command, warn
from undertow.tracking.sync import SyncReport, sync
from undertow.tracking.training import NullTracker, TrainingLog, log_training
from undertow.tracking.views import Link, links

__all__ = [
    "Link",
    "NullTracker",
    "SyncReport",
    "TrackingError",
    "TrainingLog",
    "links",
    "log_training",
    "own_ui",
    "sync",
    "ui_command",
    "warn",
]
