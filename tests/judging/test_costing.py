"""What judging costs, said before any call."""

import re
from pathlib import Path
from typing import Any

import pytest

from judging.cells import make_cell
from undertow.judging.costing import estimate
from undertow.judging.openai.prices import price_date, price_of


def settings(**changes: Any) -> dict[str, Any]:
    return {"kind": "openai", **changes}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_prices_are_found_by_name_and_by_dated_snapshot() -> None:
    assert price_of("gpt-4.1") == price_of("gpt-4.1-2025-04-14") == (2.0, 8.0)
    assert price_of("gpt-4.1-mini-2025-04-14") == (0.4, 1.6)
    assert price_of("gpt-4o-2024-05-13") == (5.0, 15.0)  # a snapshot that costs more than its name
    for unknown in ("gpt-4.1-xxxx-xx-xx", "some/model", "ft:gpt-4.1:mine", "gpt-4.1-other"):
        assert price_of(unknown) is None


def test_the_date_of_the_list_prices_is_known() -> None:
    # A newer release: look up its month, and add it to DATES.
    assert re.fullmatch(r"genai-prices \S+ \(\d{4}-\d{2}\)", price_date())


def test_an_estimate_needs_neither_key_nor_network(tmp_path: Path) -> None:
    ready = make_cell(tmp_path, ["a", "b", "same"], ["c", "same", ""], settings())
    found = estimate(ready.study, [ready.cell])
    assert (found.cells, found.rows, found.assumed) == (1, 6, 0)
    assert found.usd == pytest.approx((found.prompt_tokens * 2 + found.completion_tokens * 8) / 1e6)
    assert f"at the prices of {price_date()}" in found.describe()


def test_batches_cost_half_and_unknown_models_have_no_price(tmp_path: Path) -> None:
    full, half, unknown = (
        estimate(ready.study, [ready.cell]).usd
        for ready in (
            make_cell(tmp_path / str(i), ["a"] * 3, ["b"] * 3, changes)
            for i, changes in enumerate(
                (settings(), settings(mode="batch"), settings(model="some-model"))
            )
        )
    )
    assert full is not None and half == pytest.approx(full / 2) and unknown is None


def test_offline_judges_cost_nothing(tmp_path: Path) -> None:
    ready = make_cell(tmp_path, ["a"], ["b"], {"kind": "phrases"})
    assert estimate(ready.study, [ready.cell]).usd == 0


def test_rows_that_do_not_exist_yet_count_with_their_full_length(tmp_path: Path) -> None:
    ready = make_cell(tmp_path, ["a"] * 3, ["b"] * 3, settings())
    (ready.study.layout.stage(ready.cell, "distill") / "student.jsonl").unlink()
    found = estimate(ready.study, [ready.cell])
    assert found.assumed == ready.study.params.evaluation.prompts == found.rows - 3
