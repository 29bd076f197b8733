"""Undertow's command line: python cli.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from undertow.cli import main  # noqa: E402  (the path above makes this importable uninstalled)

if __name__ == "__main__":
    main()
