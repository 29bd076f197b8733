"""The driver of a cluster is light: what takes seconds is the workers'."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "scipy")


def test_the_driver_loads_nothing_that_only_workers_need():
    code = f"import sys, undertow.cluster.driver\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
