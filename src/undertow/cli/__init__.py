"""The command line: names, help and exit codes; no logic."""
