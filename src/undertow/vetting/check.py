"""All that can be said of a trait with what is here: texts always, a model where it is fetched."""

from undertow.errors import ConfigError, UndertowError
from undertow.study.carriers import CarrierData
from undertow.study.layout import Study
from undertow.study.prompts import Prompt, read_prompts
from undertow.study.traits import TraitData
from undertow.vetting.findings import TraitFinding
from undertow.vetting.wording import wording
from undertow.vetting.written import needed, read_texts


def check_trait(
    study: Study, name: str, model: str | None = None, *, texts_only: bool = False
) -> list[TraitFinding]:
    """Findings on data/traits/NAME, with `model` or the first of the grid that is fetched.

    No model is loaded for texts that are wrong, nor where only texts are asked for.
    Raises DataError where there is no such trait or its files cannot be read, ConfigError for a
    model that params.yaml does not name.
    """
    if model is not None and model not in study.params.models:
        known = ", ".join(study.params.models)
        raise ConfigError(f"params.yaml names no model {model!r}", f"use one of: {known}")
    data = TraitData(study.layout, name)
    if data.trait.name != name:
        raise ConfigError(
            f"{study.layout.trait(name) / 'trait.yaml'} calls itself {data.trait.name!r}",
            f"write name: {name}",
        )
    texts = read_texts(data)
    carrier = CarrierData(study.layout, study.params.carrier.name)
    benign = read_prompts(carrier.file, Prompt)
    found = list(wording(study.layout, data.trait, texts, benign, needed(study.params)))
    if texts_only:
        again = f"python cli.py trait check {name}"
        return [*found, _unknown(f"measure on a model as well: {again}", "only texts were read")]
    if any(each.state == "wrong" for each in found):
        return [*found, _unknown("mend what is wrong above first", "no model was loaded")]
    fetched = (each for each in study.params.grid.models if study.layout.fetched(each).exists())
    chosen = model or next(fetched, None)
    if chosen is None:
        first = study.params.grid.models[0]
        return [*found, _unknown(f"python cli.py fetch --model {first}, then check again")]
    from undertow.vetting.measured import measured  # loads torch, which texts do not need

    try:
        return [*found, *measured(study, chosen, data.trait, texts)]
    except UndertowError as error:
        return [*found, _unknown(error.remedy or "", error.message)]


def _unknown(remedy: str, why: str = "no model of the grid is fetched") -> TraitFinding:
    return TraitFinding(name="with a model", state="unknown", found=why, remedy=remedy)
