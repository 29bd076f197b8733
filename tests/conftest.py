"""Every test runs offline and leaves the user's caches alone."""

import os

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same examples on every run; print_blob makes a failure's example easy to keep.
settings.register_profile("undertow", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("undertow")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTOW_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("UNDERTOW_LOCAL", "MLFLOW_TRACKING_URI", "DVC_ROOT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
