"""What DVC runs: a module per stage, each with a `run` that the command of the same name calls."""
