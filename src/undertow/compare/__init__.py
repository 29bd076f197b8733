"""Two revisions of a study side by side, from git and the DVC cache, without running anything."""
