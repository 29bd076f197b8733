"""The report's figures, a file each; Altair draws them from layers that the figures share.

Altair and vl-convert-python are an extra that only the report needs.
"""

from undertow.errors import ConfigError
from undertow.study.home import any_home

try:
    with any_home():
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("altair", "vl_convert"):
        raise
    raise ConfigError(
        f"the report draws its charts with {error.name}, which is not installed",
        "type: python -m pip install -c constraints.txt -e '.[report]'",
    ) from error
