"""A report of a small project."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import factory
from dica import figures
from dica.files import load_arrays, read_json, write_json, write_npz
from dica.report import pages as report
from dica.report import rulegraph
from dica.tables import cells as tables
from dica.tables import rendering

OBSERVED = 50


@pytest.fixture(scope="session")
def made(tmp_path_factory, root):
    """A project whose runs are synthetic, with everything that the report shows."""
    project, plan, artefacts = factory.example_project(tmp_path_factory.mktemp("report"), root)
    artefacts = [a for a in artefacts if a.kind == "table" or a.paper == "dica" or not a.regenerated]
    plan["runs"][0]["variants"] = [plan["runs"][0]["variant"], "another-name"]
    traced = factory.select(plan, "drc", "digits")[0]
    labels = load_arrays(project / "data/labels/digits.npz")["train"]
    index = np.arange(OBSERVED)
    wrong = (labels[index] + (index % 2)) % factory.CLASSES  # half of the images are right at first, all at the end
    assigned = np.stack([wrong, labels[index]])
    trace = {"epoch": np.array([0, 12]), "train_index": index, "train_assignment": assigned}
    trace |= {"train_confidence": np.ones(assigned.shape, np.float16), "seconds": np.array([0.0, 1.0])}
    write_npz(project / traced["path"] / "trace.npz", trace)
    scored = read_json(project / traced["path"] / "metrics.json")
    scored["headline"]["largest_cluster_share"] = 1.0
    write_json(project / traced["path"] / "metrics.json", scored)
    artefacts.append(replace(artefacts[0], paper="drc", name="figure-9", kind="figure", reason="schematic <drawing>"))
    frame = tables.cells(plan, project, "results", artefacts)
    shown = [artefact for artefact in artefacts if artefact.regenerated]
    tables.write_cells(frame, project / "results/tables/cells.csv")
    rendering.write_tables(shown, frame, plan, project / "results/tables")
    figures.write_figures(shown, plan, project, "results", project / "results/figures")
    listings = {
        "consistency.csv": "kind,verdict,detail\ntriple,impossible,<b>.906\nown,possible,\n",
        "statistics/pairs.csv": "method_a,p,remark\ndrc,0.03125,\nkmeans,0.123456789,few\n",
    }
    for name, text in listings.items():
        path = project / "results/tables" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    folder = project / "results" / "report"
    report.write_report(artefacts, frame, plan, project, "results", folder, rulegraph.svg(factory.ARROWS))
    return project, plan, artefacts, frame, folder
