"""What no cell shows: figures, statistics, bounds and analyses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from committed import (
    CELL_DECLARED,
    IDENTITY,
    audit,
    build_tables,
    draw_figures,
    edit_json,
    edit_yaml,
    evaluate,
    run_folder,
    worst,
)
from dica.audit.auditor import Auditor
from dica.audit.uncelled import Uncelled, remake
from dica.files import load_arrays, read_json, sha256_file, write_json, write_npz
from dica.plan import plan as identity
from dica.plan import planned
from dica.plan.parameters import load_profile
from dica.tables.drawn import DRAWN_WITH


def test_what_no_cell_shows_is_checked_with_all_cells(bare: Path, capsys) -> None:
    """Statistics, bounds and analyses are made of runs, too; none of them is in cells.csv."""
    remake(planned.load_plan(bare / "results/plan.json"), bare, "results", bare / "results/tables")
    folder = run_folder(bare)
    analysis = bare / "results/analyses/cases" / Path(*folder.parts[-3:]).with_suffix(".npz")
    write_npz(analysis, {"of": np.array(sha256_file(folder / "predictions.npz"))})
    assert worst(bare) == 0
    for path in (bare / "results/tables/statistics/intervals.csv", bare / "results/tables/consistency.csv"):
        text = path.read_text()
        path.write_text(text.replace("0.8", "0.9"))
        assert worst(bare) == 3, path
        path.write_text(text)
    write_npz(analysis, {"of": np.array("0" * 64)})
    assert worst(bare) == 3
    assert "is of other predictions than its run has" in capsys.readouterr().out


def test_a_run_that_only_a_figure_shows_is_checked_with_all_cells(editable: Path, capsys) -> None:
    shutil.rmtree(editable / ".git")
    edit_yaml(editable / "params/archive.yaml", lambda body: body.update(artefacts=["dica figure-2", "drc table-1"]))
    edit_yaml(editable / "params/artefacts/dica.yaml", lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    plan = identity.make_plan(load_profile(editable / "params/archive.yaml", editable), editable)
    identity.write_plan(plan, editable / "results/plan.json")
    build_tables(editable)
    assert worst(editable) == 4
    assert "figures  dica figure-2: missing: figure-2.svg, figure-2.png" in capsys.readouterr().out
    draw_figures(editable)
    auditor = Auditor(editable)
    found = [(found.address, len(found.runs), found.code) for found in Uncelled(auditor).audit_all()]
    assert found == [("runs of figures alone", 4, 0), ("figures", 0, 0), ("plan and stray files", 0, 0)]
    (run_folder(editable) / "history.csv").write_text("epoch\n")
    assert worst(editable) == 3
    assert "history.csv: changed" in capsys.readouterr().out


@pytest.fixture(scope="module")
def drawn_once(committed: Path, tmp_path_factory) -> Path:
    """The archive with a figure beside its table, without Git."""
    root = Path(shutil.copytree(committed, tmp_path_factory.mktemp("drawn") / "project"))
    shutil.rmtree(root / ".git")
    shown = ["dica table-1", "dica figure-2"]
    edit_yaml(root / "params/archive.yaml", lambda body: body.update(artefacts=shown))
    edit_yaml(root / CELL_DECLARED, lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    plan = identity.make_plan(load_profile(root / "params/archive.yaml", root), root)
    identity.write_plan(plan, root / "results/plan.json")
    build_tables(root)
    draw_figures(root)
    return root


@pytest.fixture
def drawn(drawn_once: Path) -> Path:
    """The same, put back afterwards."""
    kept = drawn_once.with_name("kept")
    shutil.copytree(drawn_once / "results", kept)
    yield drawn_once
    shutil.rmtree(drawn_once / "results")
    shutil.move(kept, drawn_once / "results")


def figures_say(root: Path) -> tuple[int, str]:
    """Audit the figures; return their code and what is said of them."""
    (found,) = [found for found in Uncelled(Auditor(root)).audit_all() if found.address == "figures"]
    return found.code, "; ".join(f"{finding.what}: {finding.detail}" for finding in found.findings)


def edit_bytes(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def swap_picture(svg: Path, png: Path) -> None:
    """Put another picture in a PNG's place and let the SVG vouch for it."""
    old = sha256_file(png).encode()
    picture = np.array(Image.open(png))
    picture[:9] = 0
    Image.fromarray(picture).save(png)
    edit_bytes(svg, old, sha256_file(png).encode())


def test_a_figure_that_is_as_drawn_matches(drawn: Path) -> None:
    assert worst(drawn) == 0
    code, said_ = figures_say(drawn)
    assert code == 0
    assert "dica figure-2: is what the runs give" in said_
    assert "no Git checkout: changes that agree with each other go unnoticed" in said_


@pytest.mark.parametrize(
    ("tamper", "code", "message"),
    [
        (lambda svg, png: edit_bytes(svg, b'<path d="M ', b'<path d="M 1'), 3, "differs from what the runs give"),
        (lambda svg, png: edit_bytes(svg, b": 0.", b": 1."), 3, "says other numbers than the runs give"),
        (lambda svg, png: edit_bytes(svg, b"dica with", b"paint"), 3, "does not say what drew it"),
        (lambda svg, png: edit_bytes(png, b"IDAT", b"IDAt"), 3, "the PNG is not the one"),
        (lambda svg, png: swap_picture(svg, png), 3, "differs from what the runs give"),
        (lambda svg, png: png.unlink(), 4, "missing: figure-2.png"),
        (lambda svg, png: svg.unlink(), 4, "missing: figure-2.svg"),
    ],
)
def test_a_changed_figure_is_noticed(drawn: Path, tamper, code: int, message: str) -> None:
    folder = drawn / "results/figures/dica"
    tamper(folder / "figure-2.svg", folder / "figure-2.png")
    found, said_ = figures_say(drawn)
    assert (found, message in said_) == (code, True), said_
    assert worst(drawn) == code


def test_a_figure_of_older_runs_is_noticed(drawn: Path) -> None:
    """Predictions, record and tables are made anew, the figure is not."""
    folder = run_folder(drawn)
    arrays = load_arrays(folder / "predictions.npz")
    arrays["train_assignment"][:60] = 0
    write_npz(folder / "predictions.npz", arrays)
    evaluate(drawn, folder)
    files = {"predictions.npz": sha256_file(folder / "predictions.npz")}
    edit_json(folder / "run.json", lambda record: record["files"].update(files))
    build_tables(drawn)
    assert audit(drawn).code == 0
    assert "says other numbers" in figures_say(drawn)[1]
    draw_figures(drawn)
    assert worst(drawn) == 0


def test_other_libraries_than_those_that_drew_a_figure_are_a_note(drawn: Path) -> None:
    """A line may then lie elsewhere; the words and the PNG are checked all the same."""
    svg, png = (drawn / f"results/figures/dica/figure-2.{kind}" for kind in ("svg", "png"))
    versions = DRAWN_WITH.search(svg.read_text())[1].encode()
    edit_bytes(svg, versions, b"matplotlib 1.0")
    edit_bytes(svg, b'<path d="M ', b'<path d="M 1')
    code, text = figures_say(drawn)
    assert (code, "drawn with matplotlib 1.0, it was not drawn again" in text) == (0, True)
    edit_bytes(svg, b": 0.", b": 1.")
    assert figures_say(drawn)[0] == 3
    edit_bytes(svg, b": 1.", b": 0.")
    png.write_bytes(png.read_bytes() + b" ")
    assert figures_say(drawn)[0] == 3


def commit_all(root: Path) -> None:
    for command in (["init", "-q"], ["add", "-Af"], ["commit", "-qm", "all"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True)


def test_a_changed_figure_of_other_libraries_is_for_git_to_vouch_for(drawn: Path) -> None:
    svg = drawn / "results/figures/dica/figure-2.svg"
    versions = DRAWN_WITH.search(svg.read_text())[1].encode()
    commit_all(drawn)
    try:
        edit_bytes(svg, versions, b"matplotlib 1.0")
        code, text = figures_say(drawn)
    finally:
        shutil.rmtree(drawn / ".git")
    assert (code, "changed since the commit" in text) == (3, True)


def test_a_figure_without_a_run_that_the_parameters_ask_for_is_noticed(drawn: Path) -> None:
    plan = read_json(drawn / "results/plan.json")
    hidden = next(run for run in plan["runs"] if "dica figure-2" in run["needed_by"])
    hidden["needed_by"].remove("dica figure-2")
    write_json(drawn / "results/plan.json", plan)
    draw_figures(drawn)
    code, text = figures_say(drawn)
    assert (code, "ask for other runs" in text) == (3, True)


def test_deleted_bounds_are_missing(drawn: Path) -> None:
    bounds = drawn / "results/tables/consistency.csv"
    bounds.write_text("paper\n")
    commit_all(drawn)
    try:
        bounds.unlink()
        (found,) = [each for each in Uncelled(Auditor(drawn)).audit_all() if each.address == "statistics and bounds"]
    finally:
        shutil.rmtree(drawn / ".git")
    assert found.code == 4
    assert "missing; build it again" in found.findings[0].detail


def test_a_figure_whose_runs_are_damaged_is_told_from_a_changed_one(drawn: Path) -> None:
    folder = run_folder(drawn)
    metrics_file = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").write_text("{}")
    code, text = figures_say(drawn)
    assert (code, "cannot be drawn again without the metrics of results/runs/drc" in text) == (0, True)
    (folder / "metrics.json").write_bytes(metrics_file)
    (folder / "history.csv").unlink()
    code, text = figures_say(drawn)
    assert (code, "cannot be drawn again without results/runs/drc" in text) == (4, True)
