"""What scripts/write_results.py makes of the studies that PLAN-2 and PLAN-3 ask for."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from repository import ROOT
from undertow.analysis.returns import Return
from undertow.analysis.summary import ChainArm, DefenceArm, Summary
from undertow.stats.intervals import Estimate
from undertow.study.files import write_json
from undertow.study.found import read_record

SMOL, QWEN = "smollm2-135m-instruct", "qwen25-coder-05b-instruct"
RESULTS = ROOT / "docs" / "results"
REMOVED = (Estimate(value=0.9, low=0.8, high=1.0),) * 2
NO_LESS = (Estimate(value=0.0, low=-1.0, high=1.0),) * 2


class Pages:
    """The script over a copy of the pages, with the published studies that are named."""

    def __init__(self, root: Path, studies: Sequence[str]) -> None:
        self.results = root / "docs" / "results"
        self.results.mkdir(parents=True)
        shutil.copy(ROOT / "README.md", root)
        shutil.copy(RESULTS / "README.md", self.results)
        for name in studies:
            (self.results / name).symlink_to(RESULTS / name)
        spec = importlib.util.spec_from_file_location("to_come", ROOT / "scripts/write_results.py")
        assert spec is not None and spec.loader is not None
        self.script: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)
        self.script.ROOT = root

    def land(self, name: str, summary: Summary) -> None:
        (self.results / name).mkdir()
        write_json(self.results / name / "summary.json", summary)

    def row(self, letter: str) -> Any:
        return next(each for each in self.script.answers() if each.letter == letter)


def published(name: str) -> Summary:
    return read_record(RESULTS / name / "summary.json", Summary)


def all_but(*left_out: str) -> list[str]:
    names = (path.parent.name for path in RESULTS.glob("*/summary.json"))
    return [name for name in names if name not in left_out]


def test_question_c_is_answered_by_the_draws_where_they_were_run(tmp_path: Path):
    pages = Pages(tmp_path, all_but("draws"))
    assert pages.row("c").where.startswith("main/summary.json")
    main = published("main")
    known = {
        "random_slope": Estimate(value=0.5, low=0.4, high=0.6),
        "against_random": Estimate(value=0.56, low=0.4, high=0.7),
    }
    lines = tuple(line.model_copy(update=known) for line in main.lines)
    pages.land("draws", main.model_copy(update={"lines": lines}))
    row = pages.row("c")
    assert row.where == "draws/summary.json, lines: random_slope, against_random"
    assert row.said[SMOL] == (
        "yes, the trait's slope differs: 0.50 [0.40, 0.60]; 0.56 [0.40, 0.70]"
    )
    assert "draws/summary.json" in pages.script.table() + pages.script.short()


def of_both_models() -> Summary:
    """SmolLM2's published defences and Qwen's, as one study."""
    first, second = published("defences"), published("defences-qwen")
    names = ("arms", "students", "defences", "lines", "doses", "contrasts")
    return first.model_copy(
        update={name: getattr(first, name) + getattr(second, name) for name in names}
    )


def test_one_study_of_defences_takes_the_place_of_two_folders(tmp_path: Path):
    before = Pages(tmp_path / "before", all_but())
    pages = Pages(tmp_path / "after", all_but("defences", "defences-qwen"))
    pages.land("defences", of_both_models())
    row, again = pages.row("f"), pages.row("f, again")
    assert row.where == again.where == "defences/summary.json, defences: margin.removed"
    assert set(row.said) == set(again.said) == {SMOL, QWEN}
    assert row.said == before.row("f").said and again.said == before.row("f, again").said
    assert row.said[QWEN] != again.said[QWEN]
    texts = pages.script.pages()
    said = texts[tmp_path / "after" / "README.md"]
    assert "(defences/summary.json)" in " ".join(said.split())
    assert "defences-qwen" not in said.split("<!-- defences: begin -->")[1].split("<!--")[0]


def with_defences(change: dict[str, dict[str, object]]) -> Summary:
    """SmolLM2's published defences, those of these names with other values."""
    found = published("defences")
    arms: list[DefenceArm] = [
        arm.model_copy(update=change.get(arm.student, {})) for arm in found.defences
    ]
    return found.model_copy(update={"defences": tuple(arms)})


@pytest.mark.parametrize(
    ("slow", "fast", "counts"), [(1.02, 1.3, "no effect"), (1.2, 1.06, "not matched: 1")]
)
def test_of_two_rates_of_sgd_the_matched_one_counts(
    tmp_path: Path, slow: float, fast: float, counts: str
):
    pages = Pages(tmp_path, all_but("defences"))
    losses = {"sgd_03": slow, "sgd_1": fast}
    pages.land(
        "defences",
        with_defences(
            {
                name: {"loss_control": loss, "loss_control_plain": 1.0}
                for name, loss in losses.items()
            }
        ),
    )
    after = pages.row("f").said[SMOL]

    def count(text: str) -> int:
        """Recipes of a verdict that is named by its number or its recipes."""
        return sum(
            int(part.split(": ")[1]) if part.split(": ")[1].isdigit() else part.count("%")
            for part in text.split("; ")
        )

    assert count(after) == count(Pages(tmp_path / "now", all_but()).row("f").said[SMOL])
    assert counts in after and (counts == "not matched: 1") == ("not matched" in after)


def returned(condition: Literal["message", "epochs"], than: str) -> Return:
    back = Estimate(value=0.3, low=0.1, high=0.5)
    return Return(
        condition=condition,
        readout="margin",
        than=than,
        epochs=6 if condition == "epochs" else 3,
        than_epochs=3,
        removed=Estimate(value=0.1, low=0.0, high=0.2),
        otherwise=Estimate(value=0.4, low=0.3, high=0.5),
        back=(back, back),
    )


def test_what_comes_back_has_a_row_and_longer_trainings_no_other(tmp_path: Path):
    pages = Pages(tmp_path, all_but("defences"))
    change = {
        "inoculate": {"returns": (returned("message", "inoculate"),)},
        "kl_two_twice": {"returns": (returned("epochs", "kl_two"),)},
        "steer_own_twice": {"student": "twice", "returns": ()},
        "swap_gap_twice": {"student": "twice", "returns": ()},
    }
    pages.land("defences", with_defences(change))
    row = pages.row("f, back")
    assert row.said[QWEN] == Pages(tmp_path / "now", all_but()).row("f, back").said[QWEN]
    assert set(row.said) == {SMOL, QWEN}
    assert row.said[SMOL] == (
        "comes back: inoculate (message) 30 % [10, 50], kl_two_twice (epochs) 30 % [10, 50]"
    )
    assert row.where == (
        "defences/, defences-qwen/, corridor-qwen/summary.json, defences: returns.back"
    )
    removing = pages.row("f").said[SMOL]
    assert "kl_two 62 %" in removing and "twice" not in removing
    said = " ".join(pages.script.sentence().split())
    assert "of 14 defences in SmolLM2-135M 3 remove it no better than training less" in said


def test_a_defence_whose_placebo_does_as_much_is_not_passed_over(tmp_path: Path):
    pages = Pages(tmp_path, all_but("defences"))
    found = published("defences")
    own = {arm.student: arm for arm in found.defences if arm.arm == "trait_1.5"}
    change = {"beyond_line": REMOVED, "less_shift_than_placebo": NO_LESS}
    alike = {"margin": own["steer_own"].margin.model_copy(update=change)}
    pages.land("defences", with_defences({"steer_own": alike, "steer_placebo": alike}))
    assert "removes transfer, and so does its placebo: steer_own" in pages.row("f").said[SMOL]
    said = " ".join(pages.script.sentence().split())
    assert (
        "2 remove it no better than training less, 2 remove it, and so does their placebo" in said
    )


def test_a_chain_of_one_adapter_stands_behind_those_of_new_ones(tmp_path: Path):
    rounds = published("rounds")
    pages = Pages(tmp_path, all_but("rounds"))

    def further(chain: ChainArm) -> ChainArm:
        own = [
            each.model_copy(update={"continued": each.round > 1, "student": f"f{each.round}"})
            for each in chain.rounds
        ]
        step = Estimate(value=2.0, low=1.5, high=2.5)
        names = ("plain", "further_2", "further_3")
        return chain.model_copy(
            update={"rounds": tuple(own), "students": names, "margin_step": step}
        )

    more = tuple(further(chain) for chain in rounds.rounds if chain.students[0] == "plain")
    # Chains stand in the order of the grid, and nothing rests on it.
    pages.land("rounds", rounds.model_copy(update={"rounds": more + rounds.rounds}))
    row = pages.row("g")
    assert row.question.endswith("; 3 epochs of one adapter trained further")
    assert row.said[SMOL] == (
        "neither: 1.03 [0.91, 1.14]; neither: 1.00 [0.90, 1.10]; grows: 2.00 [1.50, 2.50]"
    )
