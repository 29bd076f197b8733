"""What git says of the checkout; nothing where there is no git or no repository."""

import subprocess
from pathlib import Path


def ask_git(root: Path, *arguments: str) -> str | None:
    """Output of a git command in the folder `root`; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # git itself is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
