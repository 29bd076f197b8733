"""run-cells over the machines of a Ray cluster: a driver, and workers that hold a loaded base."""
