"""What every section of params.yaml is made of."""

from pydantic import BaseModel, ConfigDict

NAME = r"^[a-z0-9][a-z0-9\-]*$"  # no dot: DVC reads one as a step down in params.yaml


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
