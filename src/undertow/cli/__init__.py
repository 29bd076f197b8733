"""The command line: names, options, help and exit codes, a module per group of commands."""
