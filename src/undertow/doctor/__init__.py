"""Is this machine ready: packages, weights, memory, disk, data, tracking."""
