"""What git and DVC know: what a stage reads and writes, the lock file, the cache, the commit."""
