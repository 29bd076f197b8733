"""The command line: names, help and exit codes; every command's work is done elsewhere.

A module per group of commands. None imports torch, transformers or mlflow at the top, so that
--help answers at once. Results go to stdout, progress and errors to stderr.
"""

import os
import sys

import typer

from undertow.cli import bench, engines, results, stages, study, traits
from undertow.errors import UndertowError
from undertow.models.processes import check_command, count
from undertow.texts.addresses import public

EXIT_CODES = "Exit codes: 0 done, 1 an error, 2 wrong usage, 3 a check found a problem."

app = typer.Typer(
    help="Measure what a language model inherits from its teacher through benign data.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (stages, study, traits, results, engines, bench):
    app.add_typer(group.app)


def main() -> None:
    """Run the command line; a problem that the user can solve ends in one message and exit 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if count() == 1 and not any(word.startswith(("--ray", "--processes")) for word in sys.argv):
        # One process trains on one GPU, and must see no other: the trainer would use them all.
        # What deals GPUs out to others has to see all of them, and shows each its own.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    try:
        check_command(sys.argv[1] if len(sys.argv) > 1 else "")
        app()
    except UndertowError as error:
        print(f"error: {public(str(error))}", file=sys.stderr)
        sys.exit(1)
