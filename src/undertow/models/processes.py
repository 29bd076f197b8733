"""The processes of one training, as `accelerate launch` or torchrun start them.

Read from the environment that both set, because asking accelerate would join the processes at
once, also in commands that have nothing to share.
"""

import os

from undertow.errors import ConfigError


def count() -> int:
    """How many processes share this command; 1 where nothing has started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this one writes files, reads the student and logs."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int | None:
    """Which of this machine's devices is this process's own; None where it is alone."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else None


def share_of(batch_size: int) -> int:
    """Rows of a batch for each process; ConfigError where they do not divide it."""
    share, left = divmod(batch_size, count())
    if left:
        raise ConfigError(
            f"distillation.batch_size = {batch_size} is the batch of all {count()} processes "
            "together, and they cannot share it evenly",
            "start a number of processes that divides it (--num_processes), or change it",
        )
    return share


def check_command(name: str) -> None:
    """ConfigError where several processes were started for a command that would do all twice."""
    if count() > 1 and name != "distill":
        raise ConfigError(
            f"{name} was started as {count()} processes, and only distill shares its work",
            f"start it once: python cli.py {name} ...; several GPUs serve run-cells "
            "--processes or --ray",
        )
