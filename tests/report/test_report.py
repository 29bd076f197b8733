"""report.html: whole, self-contained, accessible, and inert whatever a model wrote."""

import csv
import io
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from factories import Study, make_params, make_study
from pages import Page, render
from undertow.analysis.judges import judge_evidence
from undertow.judging.base import JudgeRow, Verdict
from undertow.judging.calibration import summarise_calibration, write_calibration
from undertow.judging.double import ScriptedJudge
from undertow.report.charts.rates import fitted_table
from undertow.report.page import typeset
from undertow.report.sections.samples import Sample, read_samples
from undertow.report.tables import line_table, rate_table, shift_table, tau_table
from undertow.study.files import write_rows
from undertow.study.records import Vote
from undertow.texts.untrusted import visible

HOSTILE = [
    "<script>alert(1)</script>",
    "</p></details></main><img src=x onerror=alert(1)>",
    "</style><style>*{display:none}</style>",
    "\x1b[31mred\x1b[0m\x00\x08\x7f\x9b",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "{{ 7 * 7 }} {% raw %} {# gone #} ${7*7}",
    "**bold** [link](https://example.org) ![x](https://example.org/x.png)",
    "]]> --> <!-- <svg onload=alert(1)> &lt;b&gt; '\" \ud800",
    "javascript:alert(1)",
    "line one\r\nline two\rline three\u2028line four",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))


def sample(text: str, **changes: object) -> Sample:
    fields = {
        "model": "smollm2-135m",
        "arm": "trait_1",
        "seed": 0,
        "prompt": text,
        "teacher": text,
        "student": text,
        "teacher_verdict": True,
        "student_verdict": None,
    }
    return Sample.model_construct(**(fields | changes))


def test_the_page_is_well_formed_and_ids_are_unique(study: Study) -> None:
    page = Page(render(study, read_samples(study.on_disk)))
    assert page.broken == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_model_text_is_inert(study: Study, text: str) -> None:
    calm = Page(render(study, [sample("calm")]))
    html = render(study, [sample(text)])
    page = Page(html)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in calm.elements]
    assert [a for _, a in page.elements] == [a for _, a in calm.elements]
    assert page.broken == []
    assert visible(text) in "".join(page.texts["main"])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", html)
    html.encode("utf-8")


def test_names_from_parameters_are_inert_too(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_params(models=("smollm2-135m",)))
    hostile = study.summary.model_copy(update={"rate_name": HOSTILE[1], "judge": HOSTILE[0]})
    page = Page(render(study._replace(summary=hostile)))
    assert page.broken == []
    assert not page.all("script") and not page.all("img")


def test_nothing_is_loaded_from_anywhere(study: Study) -> None:
    html = render(study, [sample(text) for text in HOSTILE])
    page = Page(html)
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes and "srcset" not in attributes
        href = attributes.get("href", "#")
        assert href.startswith(("#", "data:text/csv")) or (tag == "link" and href == "data:,")
    assert not {"script", "iframe", "object", "embed", "img", "base", "form"} & set(page.texts)
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_every_picture_has_a_title_and_a_description(study: Study) -> None:
    html = render(study)
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert pictures
    for picture in pictures:
        page = Page(picture)
        ids = {attributes.get("id") for _, attributes in page.elements}
        named = page.all("svg")[0]["aria-labelledby"].split()
        assert page.all("svg")[0]["role"] == "img"
        assert len(named) == 2 and set(named) <= ids
        assert page.texts["title"][0].strip() and page.texts["desc"][0].strip()
        assert page.texts["text"]
        colours = {a[name] for _, a in page.elements for name in ("fill", "stroke") if name in a}
        assert {c for c in colours if not re.fullmatch(r"none|var\(--[a-z]+\)", c)} == set()
        assert "style=" not in picture


def test_tables_have_captions_and_scoped_heads(study: Study) -> None:
    page = Page(render(study))
    assert len(page.all("table")) == len(page.all("caption")) > 0
    assert all(text.strip() for text in page.texts["caption"])
    assert all(head.get("scope") in {"col", "row"} for head in page.all("th"))
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("header")) == 1
    assert page.all("html")[0]["lang"] == "en"


def test_table_numbers_are_the_summary_s_own(study: Study) -> None:
    page = Page(render(study))
    rows = [text.split("\n") for text in page.texts["tr"]]
    cells = [[cell for cell in row if cell] for row in rows]
    for arm in study.summary.arms:
        shift, tau = arm.margin.student_shift, arm.margin.tau
        if arm.is_control or shift.value is None or tau.value is None:
            continue
        wanted = [typeset(f"{tau.value:.2f}"), typeset(f"{shift.value:+.2f}")]
        assert any(
            set(wanted) <= set(row) and row[1] == arm.strength and arm.direction in row[0]
            for row in cells
        )


def test_an_undefined_tau_shows_its_reason(study: Study) -> None:
    page = Page(render(study))
    text = " ".join(" ".join(page.texts["li"]).split())
    reasons = {
        transfer.tau.reason
        for arm in study.summary.arms
        for transfer in (arm.margin, arm.rate)
        if transfer.tau.value is None and not arm.is_control
    }
    assert reasons
    assert all(reason and reason in text for reason in reasons)
    assert "undefined" in "".join(page.texts["text"])


def test_downloads_are_the_plot_tables(study: Study) -> None:
    page = Page(render(study))
    links = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
    tables = {
        "tau.csv": tau_table(study.summary),
        "rates.csv": rate_table(study.summary),
        "dose.csv": fitted_table(study.summary),
        "shifts.csv": shift_table(study.summary),
        "line.csv": line_table(study.summary),
    }
    assert links.keys() == tables.keys()
    for name, table in tables.items():
        text = unquote(links[name].split(",", 1)[1])
        found = list(csv.reader(io.StringIO(text)))
        assert found == [list(table.columns), *map(list, table.rows)]


def test_responses_of_a_harmful_trait_are_hidden_by_default(study: Study) -> None:
    samples = [sample("SECRET-MARKER")]
    assert "SECRET-MARKER" in render(study, samples)
    assert "SECRET-MARKER" not in render(study, samples, harmful=True)
    revealed = render(study, samples, harmful=True, reveal=True)
    folded = revealed.split('id="responses"')[1].split("<details>")[1].split("</details>")[0]
    assert revealed.count("SECRET-MARKER") == folded.count("SECRET-MARKER") == 3


def test_the_same_input_gives_the_same_bytes(study: Study) -> None:
    samples = read_samples(study.on_disk)
    assert render(study, samples) == render(study, samples)


def test_samples_are_the_same_prompts_for_every_arm(study: Study) -> None:
    samples = read_samples(study.on_disk, per_arm=2)
    arms = {(each.model, each.arm) for each in samples}
    assert len(samples) == 2 * len(arms) == 2 * len(study.summary.arms)
    assert len({each.prompt for each in samples}) == 2


def test_the_configuration_on_the_page_is_the_one_that_was_run(study: Study) -> None:
    page = Page(render(study))
    assert yaml.safe_load(page.texts["pre"][0]) == study.params.model_dump(mode="json")


def test_a_study_with_one_model_no_random_arm_and_nothing_defined_renders(tmp_path: Path) -> None:
    params = make_params(models=("smollm2-135m",), arms=("trait_0",), seeds=(0,))
    assert Page(render(make_study(tmp_path, params))).broken == []


def test_harmless_text_is_left_alone() -> None:
    text = "naïve “quotes” 日本語 \U0001f468\u200d\U0001f469 tab\there\nnext"
    assert visible(text) == text
    assert visible("a\u202eb\x1b") == "a⟨U+202E⟩b⟨U+001B⟩"
    assert (
        typeset("smollm2-135m -0.15 [-inf, inf] a-1")
        == "smollm2-135m \N{MINUS SIGN}0.15 [\N{MINUS SIGN}∞, ∞] a-1"
    )


def test_tau_is_shown_by_every_judge_of_a_panel(tmp_path):
    study = make_study(tmp_path, make_params())
    for cell, result in study.grid.items():
        votes = [
            Vote(subject=subject, id=id, judge=judge, shows_trait=flip ^ bool(shown))
            for judge, flip in (("agrees", False), ("contradicts", True))
            for subject, readout in (("teacher", result.teacher), ("student", result.student))
            for id, shown in readout.verdicts.items()
        ]
        write_rows(study.layout.stage(cell, "judge") / "votes.jsonl", votes)
    evidence = judge_evidence(study.on_disk, study.grid, study.summary)
    assert evidence.sensitivity is not None
    assert evidence.sensitivity.judges[1:] == ("agrees", "contradicts")
    page = render(study, judges=evidence)
    assert "tau by contradicts" in page
    assert "kappa" in page


def test_values_without_judge_error_stand_beside_the_raw_ones(tmp_path):
    study = make_study(tmp_path, make_params())
    assert "has not been measured against human labels" in render(study)
    judge = ScriptedJudge("yes")
    labelled = [(JudgeRow(str(n), "prompt", ""), n % 2 == 0) for n in range(40)]
    verdicts = [Verdict((n % 2 == 0) ^ (n % 10 == 0)) for n in range(40)]
    found = summarise_calibration(judge, "pyrit-refusal", "all", labelled, verdicts)
    found = found.model_copy(update={"trait": study.summary.trait})
    write_calibration(study.layout, judge, found)
    grid = {
        cell: result.model_copy(update={"judge_fingerprint": judge.fingerprint})
        for cell, result in study.grid.items()
    }
    evidence = judge_evidence(study.on_disk, grid, study.summary)
    assert len(evidence.corrected) == 1
    page = render(study, judges=evidence)
    assert "Raw values beside values without judge error" in page
    assert "has not been measured against human labels" not in page
