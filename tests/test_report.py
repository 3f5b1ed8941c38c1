"""The report: self-contained, complete, escaped, and every link leads somewhere."""

from __future__ import annotations

import html.parser
import re

import pytest

import factory
from dica import report, tables
from dica.artefacts import load_artefacts


class Page(html.parser.HTMLParser):
    """Collects what the tests ask about, and checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.sources, self.images, self.open, self.tags = [], [], [], [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory, root):
    project, plan, artefacts = factory.example_project(tmp_path_factory.mktemp("report"), root)
    frame = tables.cells(plan, project, "results", artefacts)
    path = project / "results" / "report" / "index.html"
    report.write_report(artefacts, frame, plan, project, "results", path)
    return project, plan, artefacts, frame, path


@pytest.fixture(scope="module")
def text(made):
    return made[-1].read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_link_leads_to_a_place_on_the_page(page):
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert {link for link in page.links if not link.startswith("#")} == set()
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_nothing_is_loaded_from_elsewhere(page, text):
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.images)
    assert not re.search(r"url\(|@import|https?://", text)


def test_images_have_words(made, page):
    artefacts = made[2]
    assert len(page.images) == sum(artefact.kind == "figure" for artefact in artefacts) > 0
    assert all(len(image["alt"]) > 40 for image in page.images)


def test_every_finished_run_has_its_section(made, page, text):
    project, plan, _, _, _ = made
    finished = [run for run in plan["runs"] if (project / run["path"] / "metrics.json").is_file()]
    assert finished
    for run in finished:
        assert f"run-{run['id']}" in page.ids
        assert f"snakemake --cores all --resources gpu=1 -- {run['path']}/metrics.json" in text
    assert "dica audit drc table-1 drc/cifar10/nmi" in text
    assert "views.original" in text


def test_failures_are_shown_and_escaped(text):
    assert "loss is not finite at epoch 3 &lt;step 17&gt;" in text
    assert "<step 17>" not in text
    assert "x86 &lt;test&gt;" in text


def test_counts(made, text):
    _, plan, _, frame, _ = made
    numbers = report.counts(frame)
    assert sum(numbers.values()) == len(frame)
    for mark, count in numbers.items():
        assert f"<li>{mark} <b>{count}</b></li>" in text
    assert f"<li>planned <b>{len(plan['runs'])}</b></li>" in text


def test_bytes_repeat(made, tmp_path):
    project, plan, artefacts, frame, path = made
    report.write_report(artefacts, frame, plan, project, "results", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_a_demo_without_results(root, tmp_path):
    project = factory.make_project(tmp_path, root)
    artefacts = load_artefacts(project, ["dica table-1", "dica figure-1"])
    plan = {**factory.make_plan(artefacts, "results/demo"), "profile": "demo"}
    frame = tables.cells(plan, project, "results/demo", artefacts)
    report.write_report(artefacts, frame, plan, project, "results/demo", tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert "<title>Deep image clustering archive (demo)</title>" in text
    Page(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (200, "3 min 20 s"), (3725, "1 h 02 min"), (None, "not recorded")]
)
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def test_flatten():
    params = {"b": {"c": 1, "a": {}}, "a": [1, {"x": None}], "t": "text"}
    expected = [("a", '[1,{"x":null}]'), ("b.a", "{}"), ("b.c", "1"), ("t", "text")]
    assert report.flatten(params) == expected


def test_a_flat_curve_is_drawn():
    svg = report.sparkline([1, 2, 3], [0.5, 0.5, 0.5], "loss")
    assert 'aria-label="loss by epoch, from 0.5 in epoch 1 to 0.5 in epoch 3"' in svg
    assert "nan" not in svg
