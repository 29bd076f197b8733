"""What has ended gives its memory back, without a look at all that is imported."""

import gc
import weakref

from undertow.models.memory import free_memory, spare_imports


class Held:
    def __init__(self) -> None:
        self.itself = self  # a cycle: only the collector frees it


def test_imports_are_passed_over_and_later_work_is_freed():
    try:
        spare_imports()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
        held = Held()
        gone = weakref.ref(held)
        del held
        free_memory()
        assert gone() is None
    finally:
        gc.unfreeze()
        spare_imports.cache_clear()
