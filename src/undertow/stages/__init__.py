"""One module per stage; each has a `run` that the command of the same name calls."""
