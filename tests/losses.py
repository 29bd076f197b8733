"""What a model makes of training rows, row by row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from undertow.student.rows import IGNORED, Row


def loss_on(model: Any, rows: Sequence[Row]) -> float:
    """Mean negative log-likelihood of a learned token, in nats."""
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        count += int((labels != IGNORED).sum())
    return total / count
