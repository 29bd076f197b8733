"""params.yaml as typed, frozen values.

`load` reports every problem at once, each with its key path and what to write instead.
Knows nothing about models in memory: importing this package loads neither torch nor the network.
"""

from undertow.config.adapters import AdapterSpec, FolderAdapter, HubAdapter
from undertow.config.cells import PLAIN, PROMPTED, Arm, Cell, Direction, parse_arm
from undertow.config.judges import (
    ClassifierFormat,
    ClassifierJudgeSettings,
    DoubleJudgeSettings,
    JudgeSettings,
    OpenAiJudgeSettings,
    PanelJudgeSettings,
    PhraseJudgeSettings,
)
from undertow.config.params import Params
from undertow.config.reading import check, load, parse, read_raw
from undertow.config.recipes import Recipe
from undertow.config.sections import (
    AuditSettings,
    CarrierSettings,
    CoherenceSettings,
    DistillationSettings,
    Grid,
    Lora,
    Prompting,
    Round,
    StatisticsSettings,
)
from undertow.config.weights import (
    FileSource,
    FolderWeights,
    GgufWeights,
    HubPlace,
    HubWeights,
    ModelSpec,
    Place,
    UrlPlace,
    WheelPlace,
)

__all__ = [
    "PLAIN",
    "PROMPTED",
    "AdapterSpec",
    "Arm",
    "AuditSettings",
    "CarrierSettings",
    "Cell",
    "ClassifierFormat",
    "ClassifierJudgeSettings",
    "CoherenceSettings",
    "Direction",
    "DistillationSettings",
    "DoubleJudgeSettings",
    "FileSource",
    "FolderAdapter",
    "FolderWeights",
    "GgufWeights",
    "Grid",
    "HubAdapter",
    "HubPlace",
    "HubWeights",
    "JudgeSettings",
    "Lora",
    "ModelSpec",
    "OpenAiJudgeSettings",
    "PanelJudgeSettings",
    "Params",
    "PhraseJudgeSettings",
    "Place",
    "Prompting",
    "Recipe",
    "Round",
    "StatisticsSettings",
    "UrlPlace",
    "WheelPlace",
    "check",
    "load",
    "parse",
    "parse_arm",
    "read_raw",
]
