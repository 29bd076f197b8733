"""Undertow's command line: python cli.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

try:
    from undertow.cli.app import main
except ModuleNotFoundError as error:
    if (error.name or "").startswith("undertow"):
        raise
    sys.exit(
        f"error: {sys.executable} has no package {error.name}\n"
        "  -> source .venv/bin/activate, after make demo or make test; or: pip install -e ."
    )

if __name__ == "__main__":
    main()
