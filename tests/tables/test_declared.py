"""What artefacts declare, and the published numbers they name."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from dica.files import UserError
from dica.plan import published
from dica.plan.artefacts import load_artefacts, needs

# --- declarations ----------------------------------------------------------------------------------------------


def test_needs_are_the_rows_that_are_run(root):
    (table,) = load_artefacts(root, ["dica table-1"])
    methods = ("kmeans", "drc", "dccm", "crlc", "tcc", "imc-swav")
    controls = ("random-labels", "untrained")
    assert needs(table) == [(m, "full", "digits", s) for m in (*methods, *controls) for s in range(16)]
    (drc,) = load_artefacts(root, ["drc table-1"])
    wanted = [need for need in needs(drc) if need[0] in methods]
    assert len(wanted) == len(set(wanted)) == 2 * 6 * 5 + 6 * 3, "mean and best share their runs"
    (imc,) = load_artefacts(root, ["imc-swav table-2"])
    assert ("kmeans", "full", "cifar10", 5) not in needs(imc), "a row's own number of seeds counts"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dica.plan.artefacts", ["torch", "pandas", "matplotlib", "scipy"]),  # Snakemake imports them at each parse
        ("dica.scores.evaluation", ["torch", "pandas", "sklearn", "scipy.stats"]),  # a process a run
        ("dica.cli.__main__", ["torch", "numpy", "jsonschema"]),  # a person waits
        ("dica.tables.cells", ["torch", "sklearn", "scipy.stats", "scipy.optimize"]),  # a process a table
    ],
)
def test_what_runs_often_imports_nothing_heavy(root, module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "figur"}, "not one of: table, figure"),
        ({"sedes": 3}, "unknown key 'sedes'"),
        ({"metrics": ["accuracy"]}, "'accuracy' is not one of: acc, nmi"),
        ({"seeds": 0}, "0 is less than the minimum"),
        ({"kind": "figure", "plot": "seeds"}, "a table is expected"),
        ({"rows": [{"label": "A", "method": "drc"}, {"label": "B", "method": "drc"}]}, "'drc' is there twice"),
        ({"rows": [{"label": "A"}]}, "table-1.rows.0"),
    ],
)
def test_a_bad_declaration_names_file_and_key(project, change, message):
    path = project / "params" / "artefacts" / "dica.yaml"
    body = yaml.safe_load(path.read_text())
    body["artefacts"]["table-1"].update(change)
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_artefacts(project, ["dica"])
    assert "params/artefacts/dica.yaml" in str(caught.value)


def test_unknown_names_list_what_there_is(project):
    with pytest.raises(UserError, match="no paper 'tcp'; there are: crlc, dccm, dica, drc"):
        load_artefacts(project, ["tcp"])
    with pytest.raises(UserError, match="no 'table-9'; there are: table-1"):
        load_artefacts(project, ["drc table-9"])


def test_each_artefact_once(root):
    loaded = load_artefacts(root, ["dica", "dica table-1"])
    assert len({artefact.address for artefact in loaded}) == len(loaded)


# --- published numbers -----------------------------------------------------------------------------------------


def test_scale_keeps_the_printed_digits():
    assert published.to_scale("0.890", "percent") == "89.0"
    assert published.to_scale("0.5625", "percent") == "56.25"
    assert published.to_scale("0.7", "percent") == "70"
    assert published.to_scale("0.890", "fraction") == "0.890"


def test_find_falls_back_from_mean_to_single_only(root):
    rows = published.load_published(root)
    assert published.find(rows, "drc", "Table 1", "kmeans", "cifar10", "acc", "mean").statistic == "single"
    assert published.find(rows, "drc", "Table 1", "kmeans", "cifar10", "acc", "best") is None
    assert published.find(rows, "drc", "Table 1", "drc", "cifar10", "acc", "best").value == "0.727"
    with pytest.raises(UserError, match="has no method 'kmean'"):
        published.find(rows, "drc", "Table 1", "kmean", "cifar10", "acc", "mean")


def test_a_damaged_file_of_published_numbers_is_refused(project):
    path = project / "params" / "published" / "results.csv"
    path.write_text(path.read_text().replace("0.087", "O.087", 1))
    published.load_published.cache_clear()
    with pytest.raises(UserError, match=r"results.csv:2: value"):
        published.load_published(project)
    with pytest.raises(UserError, match="no such file"):
        published.load_published(project, "absent.csv")


def test_a_tuned_recipe_is_called_so_in_every_table_and_figure_of_the_archive(root):
    shown = [(artefact.address, row.label)
             for artefact in load_artefacts(root, ["dica"])
             for row in artefact.rows
             if {column.dataset for column in artefact.columns} == {"digits"}
             and row.method in ("drc", "dccm", "crlc", "tcc", "imc-swav") and row.variant == "full"]  # fmt: skip
    assert {address for address, _ in shown} >= {"dica table-1", "dica figure-2", "dica figure-5"}
    assert [(address, label) for address, label in shown if not label.endswith(", tuned for digits")] == []
