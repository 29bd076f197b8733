"""What a teaching adds to plain training: the same by TRL and together, alone and in company."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_together import DEVICES, SETTINGS, assert_same_losses, carrier, forget, model_of, together
from torch.nn.functional import cross_entropy

from undertow.student.answer_loss import AnswerLoss
from undertow.student.dealing import sizes_of
from undertow.student.penalties import kl_sum
from undertow.student.probing import with_probes
from undertow.student.rows import IGNORED
from undertow.student.shift import shifted
from undertow.student.teaching import Corridor, KlToBase, Teaching
from undertow.student.together import Fit, Student, Together
from undertow.student.training import train

WEIGHTS = "adapter_model.safetensors"
# Five probes are more than one pass holds, and the third is longer than the others.
PROBES = [[9, 10], [11, 12, 13], [14] * 90, [8, 11], [10]]
CORRIDOR = Corridor(PROBES, [[7], [6, 6, 9]], [[8], [8, 9]], 0.5, 2, 0.0)


def plain(vocabulary: int) -> Teaching:
    return Teaching(carrier(10, 0, vocabulary), SETTINGS)


def relabelled(rows: list[dict]) -> list[dict]:
    """Every third answer label masked, every third replaced, and one row masked whole."""
    found = []
    for number, row in enumerate(rows):
        labels = list(row["labels"])
        for place in range(4, len(labels)):
            if number == 0 or place % 3 == 0:
                labels[place] = IGNORED
            elif place % 3 == 1:
                labels[place] = 6
        found.append({**row, "labels": labels})
    return found


def vector(model, seed: int, length: float) -> torch.Tensor:
    drawn = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    return length * drawn / drawn.norm()


def teachings(model, vocabulary: int) -> dict[str, Teaching]:
    base = plain(vocabulary)
    slow = SETTINGS.model_copy(
        update={"epochs": 1, "learning_rate": 1e-3, "schedule": "linear", "batch_size": 3}
    )
    blocks = range(model.config.num_hidden_layers)
    return {
        "plain": base,
        "labels": replace(base, rows=relabelled(base.rows)),
        "settings": replace(base, settings=slow),
        "offset": replace(base, offset={0: vector(model, 1, 2.0)}),
        "ablated": replace(base, ablated={block: vector(model, 1, 1.0) for block in blocks}),
        "kl": replace(base, kl=KlToBase(0.7)),
        "early": replace(base, kl=KlToBase(0.7, "early"), offset={1: vector(model, 2, 1.0)}),
        "sgd": replace(base, optimizer="sgd"),
        "corridor": replace(base, corridor=CORRIDOR),
        "narrow": replace(
            base,
            corridor=Corridor(PROBES[:2], [[7]], [[8], [5]], 2.0, 1, 0.02),
            offset={1: vector(model, 2, 1.0)},
        ),
        "gathered": replace(
            base,
            corridor=CORRIDOR,
            kl=KlToBase(0.7),
            settings=SETTINGS.model_copy(update={"gradient_accumulation": 2}),
        ),
    }


def students_of(taught: dict[str, Teaching], folder: Path) -> list[Student]:
    return [Student(one, 0, folder / name, forget) for name, one in taught.items()]


@pytest.mark.parametrize("device", DEVICES)
def test_every_teaching_s_losses_are_trl_s_alone_and_in_a_mixed_group(device: str, tmp_path: Path):
    model, tokenizer = model_of("qwen2")
    taught = teachings(model, len(tokenizer))
    by_trl = [
        train(model, tokenizer, one, 0, tmp_path / "trl" / name, forget).losses
        for name, one in taught.items()
    ]
    model = model.to(device)
    within = 1e-5 if device == "cpu" else 1e-4
    mixed = together(model, tokenizer, students_of(taught, tmp_path / "mixed"))
    seen = set()
    for (name, one), company, expected in zip(taught.items(), mixed, by_trl, strict=True):
        (alone,) = together(model, tokenizer, students_of({name: one}, tmp_path / "alone"))
        assert_same_losses(alone.losses, expected, within)
        assert_same_losses(company.losses, expected, within)
        seen.add(tuple(round(loss, 4) for _, loss in expected))
    assert len(seen) == len(taught)  # none of them is plain by another name


def test_a_corridor_in_parts_of_a_batch_and_with_recomputed_activations(tmp_path: Path):
    model, tokenizer = model_of("llama2")
    (student,) = students_of({"one": teachings(model, len(tokenizer))["corridor"]}, tmp_path)
    run = [(student.teaching, student.seed)]
    fits = [Fit(1, 4, False), Fit(1, 1, False), Fit(1, 4, True)]
    losses = [
        next(Together(model, tokenizer, run, fit=fit).train([student]))[0].losses for fit in fits
    ]
    assert_same_losses(losses[1], losses[0])
    assert_same_losses(losses[2], losses[0])


def test_extras_of_zero_are_plain_byte_for_byte_in_the_same_group(tmp_path: Path):
    model, tokenizer = model_of("llama2")
    taught = teachings(model, len(tokenizer))
    zero = torch.zeros(model.config.hidden_size)
    base = taught["plain"]
    run = taught | {
        "weightless": replace(base, kl=KlToBase(0.0)),
        "unmoved": replace(base, offset={0: zero}, ablated={1: zero}),
    }
    together(model, tokenizer, students_of(run, tmp_path))
    bytes_of = {name: (tmp_path / name / WEIGHTS).read_bytes() for name in run}
    assert bytes_of["plain"] == bytes_of["weightless"] == bytes_of["unmoved"]
    assert len(set(bytes_of.values())) == len(run) - 2


@pytest.mark.parametrize("device", DEVICES)
def test_a_student_with_extras_depends_on_no_neighbour_and_no_place(device: str, tmp_path: Path):
    model, tokenizer = model_of("llama2")
    if device == "cuda":
        model = model.to(device, torch.bfloat16)
    taught = teachings(model, len(tokenizer))
    run = [(one, 0) for one in taught.values()]
    names = ["early", "corridor", "sgd"]
    found = []
    for number, order in enumerate([names, names[::-1], names[:1]]):
        folder = tmp_path / str(number)
        students = students_of({name: taught[name] for name in order}, folder)
        together(model, tokenizer, students, size=3, run=run)
        found.append(
            [(folder / name / WEIGHTS).read_bytes() for name in names[:2] if name in order]
        )
    assert found[0] == found[1] and found[0][:1] == found[2]


def test_a_student_whose_numbers_are_lost_takes_no_neighbour_with_a_corridor_along(tmp_path: Path):
    model, tokenizer = model_of("llama2")
    taught = {name: teachings(model, len(tokenizer))[name] for name in ("plain", "corridor")}
    lost = replace(taught["plain"], offset={0: torch.full((model.config.hidden_size,), torch.nan)})
    run = [(one, 0) for one in (*taught.values(), lost)]
    for number, names in enumerate((["lost", "corridor"], ["corridor", "lost"], ["corridor"])):
        students = students_of({n: taught.get(n, lost) for n in names}, tmp_path / str(number))
        together(model, tokenizer, students, size=2, run=run)
    first, second, alone = (
        (tmp_path / str(number) / "corridor" / WEIGHTS).read_bytes() for number in range(3)
    )
    assert first == second == alone
    kept = load_file(tmp_path / "0" / "corridor" / WEIGHTS).values()
    assert all(tensor.isfinite().all() for tensor in kept)


def test_masked_tokens_have_no_gradient_and_no_share_in_the_mean():
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 8, generator=drawn, requires_grad=True)
    head, targets = torch.randn(11, 8, generator=drawn), torch.arange(6)
    weights = torch.tensor([0.25, 0, 0.25, 0.25, 0, 0.25])
    loss = AnswerLoss.apply(hidden, head, targets, weights, 1, 1.0, None)
    loss.sum().backward()
    assert hidden.grad[weights == 0].eq(0).all() and hidden.grad[weights > 0].ne(0).any()
    kept = weights > 0
    torch.testing.assert_close(loss[0], cross_entropy(hidden[kept] @ head.T, targets[kept]))


@pytest.mark.parametrize(("divisor", "cap"), [(1.0, None), (3.0, 5.0)])
def test_kl_and_its_gradient_are_those_of_autograd(divisor: float, cap: float | None):
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 8, generator=drawn, requires_grad=True)
    base, head = torch.randn(6, 8, generator=drawn), torch.randn(11, 8, generator=drawn)
    targets, weights = torch.arange(6), torch.full((6,), 1 / 6)

    def logits(given):
        found = given @ head.T / divisor
        return found if cap is None else torch.tanh(found / cap) * cap

    loss = AnswerLoss.apply(
        hidden, head, targets, weights, 1, divisor, cap, base, torch.full((6,), 0.7)
    )
    (ours,) = torch.autograd.grad(loss.sum(), hidden)
    expected = cross_entropy(logits(hidden), targets) + 0.7 / 6 * kl_sum(
        logits(base)[None], logits(hidden)[None], targets
    )
    (theirs,) = torch.autograd.grad(expected, hidden)
    torch.testing.assert_close(loss[0], expected)
    torch.testing.assert_close(ours, theirs)


def test_a_projected_output_has_nothing_along_the_unit_forward_and_backward():
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    unit = torch.nn.functional.normalize(torch.arange(1.0, 9), dim=0)
    moved = shifted(hidden, 3 * unit, unit)
    assert (moved @ unit).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad((moved**3).sum(), hidden)
    assert (gradient @ unit).abs().max() < 1e-4


def test_finish_changes_what_is_saved_by_either_way(tmp_path: Path):
    model, tokenizer = model_of("qwen2")

    def halved(adapter):
        return {name: tensor / 2 for name, tensor in adapter.items()}

    base = plain(len(tokenizer))
    taught = {"plain": base, "halved": replace(base, finish=halved)}
    together(model, tokenizer, students_of(taught, tmp_path / "together"))
    for name, one in taught.items():
        train(model, tokenizer, one, 0, tmp_path / "trl" / name, forget)
    for way in ("together", "trl"):
        whole, half = (load_file(tmp_path / way / name / WEIGHTS) for name in taught)
        assert all(torch.equal(half[name], whole[name] / 2) for name in whole)


def test_a_corridor_holds_the_margin_by_either_way(tmp_path: Path):
    model, tokenizer = model_of("qwen2")
    base = plain(len(tokenizer))
    # The carrier teaches the opening 7 over 8, on the probes too.
    rows = [{**row, "labels": [IGNORED] * 4 + [7] * (len(row["labels"]) - 4)} for row in base.rows]
    corridor = Corridor([[9, 10], [11, 12, 13]], [[7]], [[8], [8, 9]], 1.0, 1, 0.1)
    free = replace(base, rows=rows)
    held = replace(free, corridor=corridor)
    first = train(model, tokenizer, free, 0, tmp_path / "free", forget)
    second = train(model, tokenizer, held, 0, tmp_path / "trl", forget)
    (third,) = together(model, tokenizer, students_of({"together": held}, tmp_path))
    assert first.losses[0][1] == pytest.approx(second.losses[0][1], abs=1e-5)  # no drift yet
    assert_same_losses(third.losses, second.losses)
    drifts = [drift(model, tmp_path / name, corridor) for name in ("free", "trl", "together")]
    assert drifts[0] > 0.5 and abs(drifts[1]) < drifts[0] / 2
    assert drifts[2] == pytest.approx(drifts[1], abs=1e-4)


def test_probes_fill_passes_that_are_no_longer_than_the_others_and_one_compilation_with_them():
    corridors = [CORRIDOR, CORRIDOR._replace(probes=PROBES[:2])]
    sizes = sizes_of([(plain(100), 0)], 2, 4)
    wider, grid = with_probes(sizes, corridors)
    assert (grid.probes, grid.openings, grid.length) == (1, 4, 3)
    assert grid.tokens == 384  # the longest probe before each of four openings
    assert grid.sizes.targets == {384: 12}
    assert wider.longest == grid.sizes.longest == 128 > sizes.longest
    assert wider.bounds == grid.sizes.bounds >= sizes.bounds
    assert with_probes(sizes, []) == (sizes, None)


@torch.no_grad()
def drift(model, adapter: Path, corridor: Corridor) -> float:
    from undertow.student.adapter import student_of

    def margin(one) -> float:
        found = []
        for probe in corridor.probes:
            first = one(torch.tensor([probe])).logits[0, -1].log_softmax(0)
            after = one(torch.tensor([[*probe, 8]])).logits[0, -1].log_softmax(0)
            found.append(first[7] - torch.stack([first[8], first[8] + after[9]]).logsumexp(0))
        return torch.stack(found).mean().item()

    before = margin(model)
    with student_of(model, adapter) as student:
        return margin(student) - before
