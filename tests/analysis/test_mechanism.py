"""A planted shift is found where it was planted, along what it was planted along."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from drawings import Drawn
from factories import make_params, make_study
from pages import Page
from undertow.analysis.mechanism import block_shifts, chance_of, read_mechanism
from undertow.analysis.summarise import summarise
from undertow.config import Cell
from undertow.errors import DataError
from undertow.report.report import render_report
from undertow.report.sections.mechanism import mechanism_section
from undertow.report.tables import mechanism_table, write_plot_tables

BLOCKS, HIDDEN = 4, 16
STEERED = 2


def axis(index: int, size: float) -> np.ndarray:
    vector = np.zeros(HIDDEN, dtype=np.float32)
    vector[index] = size
    return vector


def plant(study, shifts: dict[str, list[np.ndarray]]) -> None:
    """Directions along axis 0 (trait) and 1 (random), and students that moved by `shifts`."""
    noise = np.random.default_rng(0)
    for model in study.params.grid.models:
        folder = study.layout.direction(model)
        folder.mkdir(parents=True)
        save_file(
            {
                "trait": np.tile(axis(0, 2.0), (BLOCKS, 1)),
                "random": np.tile(axis(1, 2.0), (BLOCKS, 1)),
            },
            folder / "direction.safetensors",
            metadata={"undertow": json.dumps({"layers": [STEERED]})},
        )
        for seed in study.params.grid.seeds:
            start = noise.normal(size=(BLOCKS, HIDDEN)).astype(np.float32)
            for arm in study.params.arms:
                moved = start + np.stack(shifts.get(arm.name, [axis(0, 0.0)] * BLOCKS))
                file = study.layout.stage(Cell(model, arm, seed), "distill")
                save_file({"activations": moved}, file / "activations.safetensors")


@pytest.fixture
def planted(tmp_path):
    study = make_study(tmp_path)
    plant(
        study,
        {
            "trait_0.5": [axis(5, 1.0), axis(0, 1.0), axis(0, 1.0), axis(0, -1.0)],
            "trait_1": [axis(0, 1.0) + axis(5, 1.0), axis(5, 3.0), axis(0, 2.0), axis(0, 1.0)],
            "random_1": [axis(1, 1.0)] * BLOCKS,
        },
    )
    return study


def found(study, arm, against="trait"):
    model = study.params.grid.models[0]
    [entry] = [
        entry
        for entry in read_mechanism(study.on_disk)
        if (entry.model, entry.arm, entry.against) == (model, arm, against)
    ]
    return entry


def test_the_cosine_of_a_planted_shift_is_1_and_of_an_orthogonal_one_0(planted):
    cosines = [block.cosine.mean for block in found(planted, "trait_0.5").blocks]
    assert cosines == pytest.approx([0, 1, 1, -1], abs=1e-5)
    cosines = [block.cosine.mean for block in found(planted, "trait_1").blocks]
    assert cosines == pytest.approx([0.5**0.5, 0, 1, 1], abs=1e-5)


def test_the_projection_is_a_share_of_what_steering_added_at_steered_blocks(planted):
    blocks = found(planted, "trait_0.5").blocks
    assert [block.steered for block in blocks] == [False, False, True, False]
    # 1 along a direction of norm 2: half of it where nothing was added, all of 0.5 x 2 there.
    projections = [block.projection.mean for block in blocks]
    assert projections == pytest.approx([0, 0.5, 1, -0.5], abs=1e-5)


def test_a_random_arm_is_compared_with_the_trait_and_with_its_own_direction(planted):
    trait, own = found(planted, "random_1"), found(planted, "random_1", "random")
    assert [block.cosine.mean for block in trait.blocks] == pytest.approx([0] * 4, abs=1e-5)
    assert [block.cosine.mean for block in own.blocks] == pytest.approx([1] * 4, abs=1e-5)
    # Another seed has a random direction of its own, which is not the one on disk.
    assert own.seeds == 1 < trait.seeds
    against = {(each.arm, each.against) for each in read_mechanism(planted.on_disk)}
    assert ("trait_1", "random") not in against
    assert not any(arm == "trait_0" for arm, _ in against)


def test_a_negative_strength_that_is_followed_projects_positively_at_the_steered_block():
    vectors = np.tile(axis(0, 2.0), (2, 1))
    [plain, steered] = block_shifts([-vectors / 4], vectors, [1], -0.25)
    assert (plain.cosine.mean, steered.cosine.mean) == pytest.approx((-1, -1))
    assert (plain.projection.mean, steered.projection.mean) == pytest.approx((-0.25, 1))


def test_seeds_are_averaged_and_their_range_is_kept():
    vectors = axis(0, 1.0)[None]
    [block] = block_shifts([axis(0, 1.0)[None], axis(1, 1.0)[None]], vectors, [0], 1.0)
    assert (block.cosine.mean, block.cosine.low, block.cosine.high) == pytest.approx((0.5, 0, 1))


def test_a_student_that_did_not_move_has_no_cosine():
    vectors = axis(0, 1.0)[None]
    [block] = block_shifts([0 * vectors], vectors, [0], 1.0)
    assert block.cosine is None
    assert block.projection.mean == 0


def test_chance_is_the_spread_of_the_cosine_with_an_unrelated_direction(planted):
    drawn = np.random.default_rng(1).normal(size=(4000, 64))
    cosines = drawn[:, 0] / np.linalg.norm(drawn, axis=1)
    assert chance_of(64) == pytest.approx(cosines.std(), rel=0.05)
    assert found(planted, "trait_1").chance == pytest.approx(HIDDEN**-0.5)


def test_what_is_missing_is_named_and_not_made_up(planted):
    cell = planted.params.cell(planted.params.grid.models[0], "trait_1", 1)
    (planted.layout.stage(cell, "distill") / "activations.safetensors").unlink()
    entry = found(planted, "trait_1")
    assert entry.blocks == ()
    assert "dvc repro" in entry.reason
    assert found(planted, "trait_0.5").reason is None


def test_activations_of_other_weights_are_refused(planted):
    cell = planted.params.cell(planted.params.grid.models[0], "trait_1", 1)
    control = planted.params.cell(cell.model, "trait_0", 1)
    for each in (cell, control):
        path = planted.layout.stage(each, "distill") / "activations.safetensors"
        save_file({"activations": np.zeros((BLOCKS, 8), dtype=np.float32)}, path)
    with pytest.raises(DataError, match="different weights"):
        read_mechanism(planted.on_disk)


def test_the_plot_table_is_the_summary_s(planted):
    mechanism = read_mechanism(planted.on_disk)
    summary = summarise(planted.params, planted.grid, mechanism)
    assert type(summary).model_validate_json(summary.model_dump_json()).mechanism == mechanism
    table = mechanism_table(summary)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    [row] = [
        row
        for row in rows
        if (row["model"], row["arm"], row["block"]) == ("smollm2-135m", "trait_0.5", "2")
    ]
    assert (row["cosine"], row["projection"], row["steered"], row["seeds"]) == (
        "1",
        "1",
        "yes",
        "2",
    )
    write_plot_tables(planted.layout.plots, summary, {}, {})
    assert (planted.layout.plots / "mechanism.csv").read_text() == table.to_csv()


def test_the_report_draws_every_arm_and_says_what_chance_is(planted):
    mechanism = read_mechanism(planted.on_disk)
    summary = summarise(planted.params, planted.grid, mechanism)
    html = render_report(summary, planted.on_disk, responses=None, harmful=False)
    page = Page(html)
    assert page.broken == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    section = html.split('id="mechanism"')[1].split("</section>")[0]
    assert section.count("<svg") == len(planted.params.grid.models)
    # Lines per panel: two trait arms, and the random arm against either direction.
    for picture in re.findall(r"<svg.*?</svg>", section, re.DOTALL):
        assert len(Drawn(picture).marks("joined")) == 4
    assert "0.250 in smollm2-135m" in section
    assert 'download="mechanism.csv"' in section


def test_the_report_says_that_no_activations_were_kept(tmp_path):
    study = make_study(tmp_path)
    mechanism = read_mechanism(study.on_disk)
    section = mechanism_section(summarise(study.params, study.grid, mechanism))
    assert "nothing can be said" in str(section)
    assert "not in results/directions" in str(section)


def test_no_torch_is_needed():
    program = "import sys, undertow.analysis.mechanism, undertow.analysis.side_effects; "
    program += "import undertow.readouts.effects; "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_params_without_the_arm_have_no_mechanism(tmp_path):
    params = make_params(arms=("trait_0",))
    assert read_mechanism(make_study(tmp_path, params).on_disk) == ()
