"""What subjects answered and what was measured on them, kept until their stages have written it.

Subjects that are read together are kept each by itself and whole, outside of DVC's outputs: a
killed run takes up those that are finished, and each stage writes its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from undertow.errors import DataError
from undertow.lineage.stages import Work
from undertow.pipeline.meter import Meter
from undertow.pipeline.reading import Reader
from undertow.study.files import atomic_folder, fingerprint, remove_folder, write_json, write_rows
from undertow.study.found import read_record, read_rows, tensors
from undertow.study.layout import Study
from undertow.study.records import BenignResponse, Costs, FitRow, MarginRow, Response


class Reading(NamedTuple):
    """One subject's: benign is not scored yet; carrier is a teacher's, activations, fit and
    messaged (with the training message on) a student's.

    activations: [blocks, hidden] float32.
    """

    responses: list[Response]
    benign: list[BenignResponse]
    carrier: Sequence[Response] = ()
    activations: Tensor | None = None
    fit: Sequence[FitRow] = ()
    messaged: Sequence[MarginRow] = ()


class Read(NamedTuple):
    """What subjects were found to be, in their order, and the reader whose journals hold it."""

    readings: list[Reading | None]
    reader: Reader

    @property
    def only(self) -> Reading:
        """Of a subject that was read alone."""
        (reading,) = self.readings
        if reading is None:
            raise ValueError("nobody was read")
        return reading


def place_of(study: Study, work: Work, identity: str) -> Path:
    """Where the reading of a stage's subject is kept, keyed by all it depends on."""
    batch_size = study.params.runtime.batch_size
    key = fingerprint("reading", work.node.name, work.inputs, identity, batch_size)
    return study.layout.journal / key


def keep(place: Path, reading: Reading, costs: Costs) -> None:
    """Put a reading and its costs there, whole or not at all."""
    with atomic_folder(place) as folder:
        write_rows(folder / "responses.jsonl", reading.responses)
        write_rows(folder / "benign.jsonl", reading.benign)
        write_rows(folder / "carrier.jsonl", reading.carrier)
        write_rows(folder / "fit.jsonl", reading.fit)
        write_rows(folder / "message.jsonl", reading.messaged)
        if reading.activations is not None:
            path = folder / "activations.safetensors"
            save_file({"activations": reading.activations.contiguous()}, path)
        write_json(folder / "costs.json", costs)


def taken_up(place: Path, meter: Meter) -> Reading | None:
    """What is kept there, with its costs put on the meter; DataError where it is damaged."""
    if not place.exists():
        return None
    activations = place / "activations.safetensors"
    try:
        found = Reading(
            read_rows(place / "responses.jsonl", Response),
            read_rows(place / "benign.jsonl", BenignResponse),
            read_rows(place / "carrier.jsonl", Response),
            _tensor(activations) if activations.exists() else None,
            read_rows(place / "fit.jsonl", FitRow),
            read_rows(place / "message.jsonl", MarginRow),
        )
        meter.after(read_record(place / "costs.json", Costs))
    except DataError as error:
        raise DataError(
            f"the finished reading in {place} is damaged: {error.message}",
            f"rm -r {place}, and give the same command again, which reads anew",
        ) from None
    return found


def forget(place: Path, reader: Reader | None) -> None:
    """The stage's outputs are in place: drop what was kept, and the journals of a reader."""
    remove_folder(place)
    if reader is not None:
        reader.forget()


def share(whole: Costs, subjects: int, tokens: int) -> Costs:
    """A subject's share of what its group took; tokens: that it generated itself."""
    held = whole.gpu_seconds
    return whole.model_copy(
        update={
            "seconds": round(whole.seconds / subjects, 3),
            "load_seconds": round(whole.load_seconds / subjects, 3),
            "gpu_seconds": None if held is None else round(held / subjects, 3),
            "tokens_generated": tokens,
        }
    )


def _tensor(path: Path) -> Tensor:
    with tensors(path, "pt") as file:
        found: Tensor = file.get_tensor("activations")
        return found.to(torch.float32)
