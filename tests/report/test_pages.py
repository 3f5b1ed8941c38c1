"""The report: self-contained, complete, escaped, repeatable, and every link leads somewhere."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import factory
from dica import figures
from dica.files import UserError, read_json, write_json, write_npz
from dica.plan import planned
from dica.plan.artefacts import load_artefacts
from dica.plan.rungs import RUNGS
from dica.report import evidence, glossary, rulegraph
from dica.report import pages as report
from dica.report import runs as report_runs
from dica.tables import cells as tables
from dica.tables import layout
from dica.tables import links as pages
from tiny import gradient_methods


class Page(html.parser.HTMLParser):
    """Collects what the tests ask about, and checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.ids, self.links, self.sources, self.images, self.open, self.tags = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
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

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def site(made):
    return {path.name: Page(path.read_text()) for path in sorted(made[-1].glob("*.html"))}


def test_the_pages_are_those_that_the_workflow_expects(made, site):
    _, plan, artefacts, _, _ = made
    expected = pages.all_pages({a.paper for a in artefacts}, {run["method"] for run in plan["runs"]})
    assert sorted(site) == sorted(expected)
    assert {"index.html", "drc.html", "runs-drc.html", "consistency.html", "statistics.html"} <= set(site)


def test_every_link_leads_to_a_place_that_exists(made, site):
    folder = made[-1]
    for name, page in site.items():
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            file, _, anchor = link.partition("#")
            if file.startswith("../"):
                assert (folder / file).is_file(), (name, link)
            else:
                assert not anchor or anchor in site[file or name].ids, (name, link)
                assert file in (*site, ""), (name, link)


def test_links_of_printed_tables_lead_to_the_report(made, site):
    project = made[0]
    printed = (project / "results/tables/drc/table-1.html").read_text()
    links = re.findall(r'href="([^"]*)"', printed)
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        assert anchor in site[(project / "results/tables/drc" / file).resolve().name].ids


def test_every_cell_leads_to_its_runs(made, site):
    """The link of a cell names a group by a run, and that group shows each of the cell's runs."""
    _, plan, _, frame, _ = made
    ids = {run["path"]: run["id"] for run in plan["runs"]}
    cells = frame[frame["n"] > 0]
    assert len(cells) > 20
    for cell in cells.itertuples(index=False):
        page, anchor = layout.runs_link(cell).split("#")
        assert f"{page}#{anchor}" in site[pages.paper_page(cell.paper)].links
        before, after = site[page].text.split(f'<span id="{anchor}">')
        assert "<details" not in before.rpartition("<section")[2], "the link is to the head of the group"
        section = after.split("</section>")[0]
        for path in cell.runs.split():
            assert f'id="run-{ids[path]}"' in section
            assert f"snakemake --cores all --resources gpu=1 -- {path}/metrics.json" in section
        assert "dica audit " in section


def test_nothing_is_loaded_from_elsewhere(site):
    for name, page in site.items():
        assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object")], name
        assert all("src" not in attributes for attributes in page.named("script"))
        assert all(source.startswith("data:image/") for source in page.sources)
        assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page.text)
        assert set(re.findall(r"https?://[^\s\"'<]*", page.text)) <= {"http://www.w3.org/2000/svg"}


def test_pages_speak(site):
    """Language, landmarks, a skip link, words for images and scopes for headings: what a screen reader needs."""
    for name, page in site.items():
        assert page.named("html") == [{"lang": "en"}]
        assert all(len(page.named(tag)) == 1 for tag in ("header", "main", "footer", "h1", "title")), name
        assert "#main" in page.links
        assert "main" in page.ids
        assert all(len(image["alt"]) > 40 for image in page.images)
        assert all("scope" in heading for heading in page.named("th"))
        drawings = page.named("svg")
        assert all(len(drawing["aria-label"]) > 20 and drawing["role"] == "img" for drawing in drawings)
        assert all(part["aria-label"] for part in page.named("nav"))
        assert all(part["tabindex"] == "0" and part["aria-label"] for part in page.named("div") if "role" in part)
        fields = page.named("input") + page.named("select")
        assert page.text.count("<label") == len(fields)
    alts = [image["alt"] for image in site["dica.html"].images]
    assert sum("mean" in alt or "One seed" in alt for alt in alts) >= 3, alts


def test_runs_have_parameters_curves_confusion_and_provenance(made, site):
    _, plan, _, _, _ = made
    text = site["runs-drc.html"].text
    assert "views.original" in text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "x86 &lt;test&gt;" in text
    run = factory.select(plan, "drc", "digits")[0]
    section = text.split(f'id="run-{run["id"]}"')[1].split("</details>")[0]
    assert 'aria-label="ACC of the observed images by epoch, from 0.5 in epoch 0 to 1 in epoch 12"' in section
    assert 'aria-label="loss by epoch' in section
    assert section.count('<tr><th scope="row">') == factory.CLASSES
    assert section.count("sha256 of") == 3


def test_another_name_of_the_same_parameters_is_an_anchor_too(made, site):
    run = made[1]["runs"][0]
    anchor = layout.group_id(run["method"], "another-name", run["dataset"])
    assert anchor in site[pages.runs_page(run["method"])].ids


def test_what_was_not_run_is_listed_with_its_command(made, site):
    _, plan, _, _, _ = made
    run = factory.select(plan, "drc", "cifar20")[0]
    assert f"snakemake --cores all --resources gpu=1 -- {run['path']}/metrics.json" in site["runs-drc.html"].text
    assert 'id="not-run"' in site["runs-drc.html"].text
    assert "prepared, not trained yet" in site["index.html"].text


def test_the_contents_of_a_paper_say_what_has_been_run(made, site):
    _, plan, _, frame, _ = made
    cells = frame[(frame["paper"] == "drc") & (frame["artefact"] == "table-1") & (frame["method"] != "")]
    assert f"({(cells['n'] > 0).sum()} of {len(cells)} cells run)" in site["drc.html"].text
    shown = [run for run in plan["runs"] if "dica figure-1" in run["needed_by"]]
    done = sum((made[0] / run["path"] / "metrics.json").is_file() for run in shown)
    assert done > 0
    assert f"({done} of {len(shown)} runs)" in site["dica.html"].text


def test_a_collapsed_run_is_named_on_its_page_and_below_its_table(made, site):
    clusters = factory.CLASSES
    assert f"Seed 0 collapsed: all images in 1 of {clusters} clusters." in site["runs-drc.html"].text
    assert f"seed 0 collapsed: all images in 1 of {clusters} clusters" in site["dica.html"].text
    assert "collapsed:" not in site["runs-kmeans.html"].text


def test_what_is_not_regenerated_says_why(site):
    assert "Not regenerated: schematic &lt;drawing&gt;" in site["drc.html"].text
    assert "#drc-figure-9" in site["drc.html"].links


def test_failures_are_shown_and_escaped(site):
    for name in ("index.html", "runs-drc.html"):
        assert "loss is not finite at epoch 3 &lt;step 17&gt;" in site[name].text
    assert not any("<step 17>" in page.text for page in site.values())


def test_counts(made, site):
    _, plan, _, frame, _ = made
    numbers = report.counts(frame)
    assert sum(numbers.values()) == len(frame)
    text = site["index.html"].text
    for mark, count in numbers.items():
        assert f"<li>{mark} <b>{count}</b></li>" in text
    assert f"<li>planned <b>{len(plan['runs'])}</b></li>" in text


def test_the_search_index_is_complete_and_leads_somewhere(made, site):
    _, plan, artefacts, _, _ = made
    embedded = site["index.html"].text.split('type="application/json">')[1].split("</script>")[0]
    entries = json.loads(embedded)
    for _, _, link in entries:
        file, _, anchor = link.partition("#")
        assert anchor in site[file].ids, link
    kinds = [kind for kind, _, _ in entries]
    finished = [run for run in plan["runs"] if (made[0] / run["path"]).is_dir()]
    assert kinds.count("run") == len(finished)
    assert kinds.count("table") + kinds.count("figure") == len(artefacts)
    cell = next(text for kind, text, _ in entries if kind == "cell" and "IMC-SwAV (Best) on CIFAR-10" in text)
    assert "ACC here 0.9" in cell
    assert "published 0.897" in cell


def test_listings_of_statistics_and_consistency(site):
    text = site["consistency.html"].text
    assert "<h2>ACC, NMI and ARI printed together</h2>" in text
    assert "&lt;b&gt;.906" in text
    own = text.split('<section id="consistency-own">')[1]
    assert ">detail<" not in own  # empty there
    text = site["statistics.html"].text
    assert '<td class="text">kmeans</td><td>0.1235</td><td class="text">few</td>' in text
    assert '<th scope="col" class="text">method a</th><th scope="col">p</th>' in text


def test_bytes_repeat_and_stale_pages_go(made, tmp_path):
    project, plan, artefacts, frame, folder = made
    (tmp_path / "runs-gone.html").write_text("of an older plan")
    report.write_report(artefacts, frame, plan, project, "results", tmp_path, rulegraph.svg(factory.ARROWS))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in folder.iterdir())
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_demo_without_results(root, tmp_path):
    project = factory.make_project(tmp_path, root)
    artefacts = load_artefacts(project, ["dica table-1", "dica figure-1"])
    plan = {**factory.make_plan(artefacts, "results/demo"), "profile": "demo"}
    frame = tables.cells(plan, project, "results/demo", artefacts)
    assert figures.write_figures(artefacts, plan, project, "results/demo", project / "results/demo/figures") == []
    texts = report.render(artefacts, frame, plan, project, "results/demo", "")
    command = "snakemake --cores all --resources gpu=1 --configfile params/demo.yaml -- results/demo/figures/dica"
    assert f"{command}/figure-1.svg" in texts["dica.html"]
    assert "on an NVIDIA H100 as stated" in texts["dica.html"]
    assert texts["dica.html"].count("<figure") == 0
    assert "<title>Deep image clustering archive (demo)</title>" in texts["index.html"]
    assert "No run is finished." in texts["index.html"]
    assert "Not computed in this archive yet" in texts["statistics.html"]
    for text in texts.values():
        Page(text)


def test_every_word_of_a_curve_is_in_the_glossary(root):
    traces = [root / "tests/golden" / f"{name}.json" for name in gradient_methods()]
    said = {name for path in traces for name in _recorded(read_json(path))}
    assert len(said) > 40
    assert not {name for name in said if glossary.plain_name(name) not in glossary.LOSS_PARTS}


def _recorded(golden):
    names = {name for variant in golden.values() for epoch in variant["history"] for name in epoch}
    return names - set(glossary.NO_PARTS)


def test_the_landing_page_says_what_was_measured_and_where_the_claims_are(made, site):
    project, plan, artefacts, frame, _ = made
    found = evidence.Evidence(artefacts, frame, plan, project, "results")
    assert sum(found.numbers[f"measured, {words}"] for words in RUNGS.values()) == int((frame["n"] > 0).sum())
    assert found.numbers["printed in the papers' tables"] == int(
        ((frame["published"] != "") & (frame["paper"] != "dica")).sum())  # fmt: skip
    assert found.sentence().replace("'", "&#39;") in site["index.html"].text
    assert "claims.html" in site["index.html"].links


def test_what_a_number_means_is_a_page_with_the_tables_of_the_docs(made, site, root):
    page = site["numbers.html"]
    assert page.text.count("<h2>") == (root / "docs/numbers.md").read_text().count("\n## ")
    assert "<td>60,000</td>" in re.sub(r' style="[^"]*"', "", page.text)
    assert "<!--" not in page.text
    assert "&lt;!--" not in page.text
    tables = [target for target in page.links if re.fullmatch(r"dica\.html#dica-table-\d+", target)]
    assert {target.partition("#")[2] for target in tables} <= set(site["dica.html"].ids)
    assert all("numbers.html" in other.links for other in site.values())


def test_torch_stays_out():
    code = "import sys, dica.report.pages, dica.report.rulegraph, dica.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (200, "3 min 20 s"), (3725, "1 h 02 min"), (None, "not recorded")]
)
def test_duration(seconds, text):
    assert report_runs.duration(seconds) == text


def test_flatten():
    params = {"b": {"c": 1, "a": {}}, "a": [1, {"x": None}], "t": "text"}
    expected = [("a", '[1,{"x":null}]'), ("b.a", "{}"), ("b.c", "1"), ("t", "text")]
    assert report_runs.flatten(params) == expected


def test_curves():
    flat = report_runs.curve([1, 2, 3], [0.5, 0.5, 0.5], "loss")
    assert flat.points == "0,90 150,90 300,90"
    assert flat.spoken == "loss by epoch, from 0.5 in epoch 1 to 0.5 in epoch 3"
    falling = report_runs.curve([0, 1, 2], [3.0, float("nan"), 1.0], "loss")
    assert (falling.points, falling.low, falling.high) == ("0,0 300,90", "1", "3")
    assert report_runs.curve([1], [2.0], "loss") is None
    long = report_runs.curve(range(5000), range(5000), "loss")
    assert len(long.points.split()) == report_runs.POINTS
    assert long.points.endswith("300,0")


@pytest.fixture
def predicted(tmp_path):
    """Two clusters for each of the classes 0 and 1 (the second ones small), one wrong image, one without label."""
    true = np.array([0, 0, 0, 1, 1, 1, 1, -1])
    write_npz(tmp_path / "p.npz", {"train_assignment": np.array([3, 3, 0, 1, 1, 1, 3, 2]), "num_clusters": np.int64(4)})
    return tmp_path / "p.npz", report_runs.Truth({"train": true}, ("cat", "dog"))


def test_confusion_puts_clusters_under_their_classes(predicted):
    matrix = report_runs.confusion(*predicted, "all", by_identity=False)
    assert matrix["clusters"] == [3, 1, 0, 2]
    assert matrix["rows"] == [
        ("cat", [(2, 0.67), (0, 0.0), (1, 0.33), (0, 0.0)]),
        ("dog", [(1, 0.25), (3, 0.75), (0, 0.0), (0, 0.0)]),
    ]
    by_identity = report_runs.confusion(*predicted, "train", by_identity=True)
    assert by_identity["clusters"] == [0, 1, 2, 3]


def test_a_large_confusion_matrix_is_an_image(tmp_path):
    true = np.arange(300) % 100
    write_npz(tmp_path / "p.npz", {"test_assignment": (true + 1) % 100, "num_clusters": np.int64(100)})
    truth = report_runs.Truth({"test": true}, tuple(map(str, range(100))))
    matrix = report_runs.confusion(tmp_path / "p.npz", truth, "test", by_identity=False)
    assert matrix["rows"] == []
    assert matrix["image"].startswith("data:image/png;base64,")
    assert matrix["clusters"][:2] == [1, 2]
    assert report_runs.confusion(tmp_path / "absent.npz", truth, "test", by_identity=False) is None


def test_the_rules_are_read_and_drawn():
    chart = "flowchart TB\n\tid0[all]\n\tid1[page]\n\tid1 --> id0\n\tid1 --> id0\n"
    assert rulegraph.parse(chart) == [("page", "all")]
    assert rulegraph.mermaid([("page", "all")]).splitlines()[2] == "    page --> all"
    svg = rulegraph.svg(factory.ARROWS)
    assert svg == rulegraph.svg(factory.ARROWS)
    assert svg.count("<polyline") == len(factory.ARROWS) - 1
    heights = {name: float(y) for y, name in re.findall(r'<text x="[-\d.]+" y="([-\d.]+)"[^>]*>(\w+)(?: ↻)?<', svg)}
    assert all(heights[start] < heights[end] for start, end in factory.ARROWS if start != end)
    assert "train ↻" in svg
    assert "train leads to train" in svg
    with pytest.raises(UserError, match="2 pieces"):
        rulegraph.svg([("a", "b"), ("c", "d")])


def test_a_workflow_that_cannot_be_read_is_one_error(tmp_path):
    for name in rulegraph.SOURCES[1:]:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "Snakefile").write_text("rule all\n")
    with pytest.raises(UserError, match="snakemake --rulegraph failed"):
        rulegraph.arrows(tmp_path)


def test_a_run_built_on_another_links_to_it(made):
    project, plan, _, frame, _ = made
    source, built = factory.select(plan, "drc", "digits")[0], factory.select(plan, "kmeans", "digits")[0]
    changed = json.loads(json.dumps(plan))
    for run in changed["runs"]:
        if run["id"] == built["id"]:
            run["params"]["source"] = {"method": "drc", "variant": "full", "id": source["id"]}
    groups = report_runs.groups_of(frame, changed, planned.load_runs(changed, project, "results"), project)
    runs = [run for group in groups["kmeans"] for run in group["runs"]]
    assert [run["source_link"] for run in runs if run["source"]] == [f"runs-drc.html#run-{source['id']}"]


def test_runs_of_one_variant_with_other_parameters_are_groups_apart(made):
    project, plan, _, frame, _ = made
    changed = json.loads(json.dumps(plan))
    last = factory.select(changed, "drc", "digits")[-1]
    last["params"]["epochs"] = 7
    last["path"] = last["path"].replace(last["id"], "0" * 12)  # not run
    last["id"] = "0" * 12
    groups = report_runs.groups_of(frame, changed, planned.load_runs(changed, project, "results"), project)["drc"]
    full = [group for group in groups if group["dataset"] == "digits" and group["variants"] == [last["variant"]]]
    assert [group["anchor"] for group in full] == ["runs-drc-full-digits", "runs-drc-full-digits-000000000000"]
    assert full[1]["apart"] == "epochs 7"
    assert full[0]["apart"].startswith("epochs ")
    assert [group["planned"] for group in full][1] == 1


def test_a_long_record_of_a_method_is_shortened(made):
    project, plan, _, frame, _ = made
    run = factory.select(plan, "kmeans", "digits")[1]
    path = project / run["path"] / "run.json"
    before = path.read_text()
    write_json(path, json.loads(before) | {"method_record": {"labelled": list(range(400))}})
    try:
        groups = report_runs.groups_of(frame, plan, planned.load_runs(plan, project, "results"), project)
    finally:
        path.write_text(before)
    records = [found["record"] for group in groups["kmeans"] for found in group["runs"] if found["record"]]
    assert len(records) == 1
    assert re.fullmatch(r"\[0,1,.* … \(\d+ more letters in run\.json\)", dict(records[0])["labelled"])


def test_a_long_listing_shows_lines_of_every_data_set() -> None:
    rows = [[name, str(k)] for name, count in (("cifar10", 900), ("digits", 700), ("stl10", 3)) for k in range(count)]
    shown = report._shown(["dataset", "value"], rows)
    share = report.MOST_ROWS // 3
    assert [sum(row[0] == name for row in shown) for name in ("cifar10", "digits", "stl10")] == [share, share, 3]
    assert report._shown(["method"], rows) == rows[: report.MOST_ROWS]
    assert report._shown(["dataset", "value"], rows[:5]) == rows[:5]
