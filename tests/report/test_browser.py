"""The report in a browser: what a reader clicks, phones, and errors on a page."""

from __future__ import annotations

import shutil

import pytest

import browser
import factory
from dica.tables import layout

needs_chromium = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"
)
STEPS = """
  let doc = await open("drc.html");
  const link = doc.querySelector("#drc-table-1 tr[data-method=drc] td a");
  found.cell = link.getAttribute("href");
  doc = await follow(link);
  const anchor = doc.querySelector(":target").id, target = doc.querySelector(":target").parentElement;
  const page = doc.location.pathname.split("/").pop();
  const top = Math.round(target.getBoundingClientRect().top);
  found.arrived = {page, anchor, runs: target.querySelectorAll(".run").length, top};

  const row = target.querySelectorAll("tbody th a")[1];
  const run = doc.querySelector(row.getAttribute("href"));
  found.closed = run.open;
  row.click();
  await settled();
  found.opened = run.open;

  doc = await open("index.html");
  input(doc.getElementById("query"), "IMC-swav cifar10 best");
  found.search = [...doc.querySelectorAll("#hits a")].map((hit) => [hit.textContent, hit.getAttribute("href")]);
  input(doc.getElementById("query"), "<b>nothing");
  found.nothing = doc.getElementById("found").textContent;

  doc = await open("drc.html");
  const lines = () => doc.querySelectorAll("#drc-table-1 tbody tr:not([hidden])").length;
  const form = doc.querySelector("form.filters");
  found.all = lines();
  form.run.click();
  found.with_runs = lines();
  input(form.method, "kmeans");
  found.kmeans = lines();
  form.reset();
  await settled();
  input(form.verdict, "failed");
  found.failed = lines();
"""


@needs_chromium
def test_a_reader_finds_the_runs(made, tmp_path):
    plan, folder = made[1], shutil.copytree(made[-1], tmp_path / "report")  # a browser leaves files behind
    pages = sorted(path.name for path in folder.glob("*.html"))
    found, errors = browser.browse(folder, pages, STEPS)
    assert "error" not in found, found["error"]
    assert errors == []
    for page in pages:
        assert found[page]["title"].endswith("Deep image clustering archive")
        assert found[page]["scripted"]
    runs = [run for run in factory.select(plan, "drc", "cifar10") if run["variant"] == "full"]
    anchor = layout.group_with(runs[0]["id"])
    assert found["cell"] == f"runs-drc.html#{anchor}"
    assert 0 <= found["arrived"].pop("top") < 100
    assert found["arrived"] == {"page": "runs-drc.html", "anchor": anchor, "runs": len(runs)}
    assert (found["closed"], found["opened"]) == (False, True)
    assert found["search"]
    assert all("IMC-SwAV (Best)" in text for text, _ in found["search"])
    assert found["nothing"] == "0 found"
    assert found["all"] > found["with_runs"] > found["kmeans"] == 2
    assert 0 < found["failed"] < found["all"]


@needs_chromium
def test_pages_fit_a_phone(made, tmp_path):
    folder = shutil.copytree(made[-1], tmp_path / "report")
    pages = sorted(path.name for path in folder.glob("*.html"))
    found, _ = browser.browse(folder, pages, width=360)
    assert {page: found[page]["overflow"] for page in pages} == dict.fromkeys(pages, 0)


@needs_chromium
def test_an_error_on_a_page_would_be_seen(tmp_path):
    (tmp_path / "bad.html").write_text("<script>throw new Error('seeded')</script>")
    _, errors = browser.browse(tmp_path, ["bad.html"])
    assert len(errors) == 1
    assert "seeded" in errors[0]
