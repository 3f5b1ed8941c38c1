"""Figures: what they read, that bytes repeat, and that missing runs are named."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import factory
from dica import figures
from dica.figures import curves, numbers, style
from dica.figures.panel import seeds_shown
from dica.files import UserError
from dica.plan.artefacts import load_artefacts
from dica.plan.parameters import load_method, method_names

PAPERS = ("drc", "dccm", "crlc", "tcc", "imc-swav")


@pytest.fixture(scope="module")
def example(tmp_path_factory, root):
    project = factory.make_project(tmp_path_factory.mktemp("figures"), root)
    artefacts = load_artefacts(project, ["dica figure-1", "dica figure-2"])
    plan = factory.make_plan(artefacts)
    for entry in plan["runs"]:
        if entry["method"] != "imc-swav":
            factory.write_run(project, entry, 0.8)
    return project, plan, artefacts


def test_history_is_averaged_by_epoch(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,step,loss,af,empty,lr\n1,1,4,1,,0.1\n1,2,2,3,,0.1\n2,3,1,,,0.1\n")
    history = figures.read_history(path)
    assert history["epoch"] == [1, 2]
    assert history["loss"] == [3, 1]
    assert history["af"][0] == 2
    assert history["af"][1] != history["af"][1], "an epoch without a value stays empty"
    assert figures.loss_parts(history) == ["loss", "af"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("epoch step over_loss over_L_AF loss L_AF lr", ["loss", "L_AF", "over_loss", "over_L_AF"]),
        ("epoch step loss L_FC encoder_loss lr", ["loss", "L_FC", "encoder_loss"]),
        ("epoch step components", ["components"]),
    ],
)
def test_the_total_loss_comes_first_and_its_parts_stay_beside_it(header: str, expected: list[str]) -> None:
    assert figures.loss_parts({name: [0.0] for name in header.split()}) == expected


@pytest.mark.parametrize("text", ["step,loss\n1,2\n", "epoch,loss\n1,abc\n"])
def test_a_damaged_history_is_named(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError, match=r"history\.csv: not a history"):
        figures.read_history(tmp_path / "history.csv")


def test_a_figure_of_a_lower_rung_says_so_above_it(example):
    project, plan, artefacts = example
    lower = replace(artefacts[0], rung="digits", title="On the digits, not the paper's data: curves")
    figure, words = figures.draw(lower, plan, project, "results")
    said = figure.get_suptitle()
    plt.close(figure)
    assert said == "On the digits, not the paper's data"
    assert words.startswith(f"{said}. ")


def test_bytes_repeat_and_text_stays_text(example, tmp_path):
    project, plan, artefacts = example
    first = figures.write_figures(artefacts, plan, project, "results", tmp_path / "a")
    second = figures.write_figures(artefacts, plan, project, "results", tmp_path / "b")
    assert [p.suffix for p in first] == [".svg", ".png"] * 2
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    svg = first[0].read_text()
    assert svg.count("DRC, tuned for digits</text>") == 1, "the method stands above its first line of parts only"
    assert ">over_loss</text>" in svg
    assert "IMC-SwAV, tuned for digits: not run yet" in svg
    assert not re.search(r"<dc:date>", svg)
    assert (
        "http"
        not in re.sub(r'(xmlns(:\w+)?|rdf:resource|about)="[^"]*"|<!DOCTYPE[^>]*>', "", svg).split("</metadata>")[1]
    )


def test_words_of_a_figure_name_every_value(example):
    project, plan, artefacts = example
    figure, words = figures.draw(artefacts[1], plan, project, "results")
    assert "IMC-SwAV, tuned for digits on Digits: not run." in words
    assert len(re.findall(r"\d\.\d{3}", words)) == 8, "two methods: three seeds and a mean each"
    plt.close(figure)


def test_axes_are_labelled_and_the_legend_is_outside(example):
    project, plan, artefacts = example
    figure, _ = figures.draw(artefacts[1], plan, project, "results")
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_ylabel() == "ACC (fraction of 1)"
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 <= axes.get_window_extent().y0, "the legend covers no data"
    plt.close(figure)


def test_a_long_list_of_loss_parts_wraps(example):
    project, plan, artefacts = example
    figure, _ = figures.draw(artefacts[0], plan, project, "results")
    figure.canvas.draw()
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title("left") for axes in drawn[:2]] == ["DRC, tuned for digits\nloss", "l_af"]
    titles = [axes._left_title.get_window_extent() for axes in drawn]
    assert not [1 for k, one in enumerate(titles) for other in titles[:k] if one.overlaps(other)]
    assert len(drawn) == 6, "the six parts of DRC; IMC-SwAV, not run, gets a line of words"
    assert max(axes.get_subplotspec().colspan.stop for axes in figure.axes) == figures.curves.PANELS
    plt.close(figure)


def test_figures_without_any_run_are_not_written_but_can_be_drawn(root, tmp_path):
    project = factory.make_project(tmp_path, root)
    artefacts = [artefact for artefact in load_artefacts(project, ["dica"]) if artefact.kind == "figure"]
    plan = factory.make_plan(artefacts)
    assert artefacts
    assert figures.write_figures(artefacts, plan, project, "results", tmp_path / "out") == []
    for artefact in artefacts:
        figure, words = figures.draw(artefact, plan, project, "results")
        plt.close(figure)
        assert re.search(r"not run|Not run| 0", words), words


def test_all_38_figures_of_the_papers_are_declared(root: Path) -> None:
    with open(root / "params/published/artefacts.csv", newline="") as file:
        listed = {(row["paper"], row["artefact_id"]) for row in csv.DictReader(file) if row["kind"] == "figure"}
    declared = {(a.paper, a.name): a for a in load_artefacts(root, PAPERS) if a.kind == "figure" and not a.rung}
    assert len(listed) == 38
    assert set(declared) == listed
    drawings = {f"{paper} {name}" for (paper, name), artefact in declared.items() if not artefact.regenerated}
    known = "drc 1, drc 2, dccm 2, crlc 1, tcc 1, tcc 2, tcc 7, imc-swav 1"
    assert drawings == {entry.replace(" ", " figure-") for entry in known.split(", ")}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_declared_figure_has_options_that_its_plot_knows(root: Path, paper: str) -> None:
    known = {name: load_method(name, root)["variants"] for name in method_names(root)}
    for artefact in load_artefacts(root, [paper]):
        if artefact.kind != "figure" or not artefact.regenerated:
            continue
        unknown = [row.key for row in artefact.rows if row.method in known and row.variant not in known[row.method]]
        assert unknown == []
        figure, words = figures.draw(artefact, {"runs": [], "artefacts": []}, root, "results")
        assert artefact.plot == "surfaces" or "ot run" in words
        plt.close(figure)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([([0, 1, 2], [0, 2, 4]), ([0, 1, 2], [2, 2, 2])], ([0, 1, 2], [1, 2, 3])),
        ([([0, 5, 10], [0, 5, 10]), ([0, 2, 4], [2, 2, 2])], ([0, 2, 4], [1, 2, 3])),  # the slower one is cut
        ([([1, 2], [1, 1]), ([0, 1.5, 4], [0, 3, 3])], ([1, 2], [1.5, 2])),
        ([([3], [1.0]), ([3], [2.0])], ([3], [1.5])),
    ],
)
def test_a_mean_curve_is_over_equal_x(lines, expected) -> None:
    for order in (lines, lines[::-1]):
        x, y = curves.mean_line(order)
        assert (x, y) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([3], "Seeds shown: 3."),
        ([1, 1], "One seed each."),
        ([3, 3], "Seeds shown: 3 each."),
        ([24, 3], "Seeds shown: 24 for a; 3 for b."),
        ([12, 12, 5, 5, 12, 5, 5], "Seeds shown: 12 for a, b, e; 5 for the others."),
        ([5, 5, 5, 10, 8], "Seeds shown: 10 for d; 8 for e; 5 for the others."),
    ],
)
def test_the_numbers_of_seeds_are_said(counts: list[int], said: str) -> None:
    assert seeds_shown(dict(zip("abcdefg", counts, strict=False))) == said


def test_a_mean_lies_above_the_seeds_of_every_row() -> None:
    figure, axes = plt.subplots()
    for tint in ("red", "blue"):
        curves._seeds_and_mean(axes, [([0, 1], [0, 1]), ([0, 1], [1, 0])], tint)
    for k in range(2):
        numbers._sweep_line(axes, [(0.0, [0.1, 0.3])], k)
    seeds = [line.get_zorder() for line in axes.lines if line.get_alpha()]  # these are pale
    means = [line.get_zorder() for line in axes.lines if not line.get_alpha()]
    plt.close(figure)
    assert (len(seeds), len(means)) == (6, 4)
    assert max(seeds) < min(means)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["drc", "dccm", "crlc", "tcc", "imc-swav", "simclr", "untrained"], [0, 1, 2, 3, 4, 6, 5]),
        (["kmeans", "drc", "tcc"], [6, 0, 3]),
        (["nmi", "acc", "ari"], [1, 0, 2]),
        (["tcc", "mice", "cc", "iic", "pica"], [3, 6, 5, 0, 1]),  # more than nobody's colours: of who is not here
        (["crlc", "crlc", "simclr"], [0, 1, 2]),  # variants: by position
    ],
)
def test_methods_and_metrics_keep_their_colour_from_figure_to_figure(names: list[str], expected: list[int]) -> None:
    assert style.tints(names) == expected


def test_a_method_has_the_same_colour_in_every_plot(example) -> None:
    project, plan, artefacts = example  # a figure of DRC's curves; one of dots, K-means first
    found = []
    for artefact in artefacts:
        figure, _ = figures.draw(artefact, plan, project, "results")
        found.append([line.get_color() for axes in figure.axes for line in axes.lines if line.get_marker() != "_"])
        plt.close(figure)
    assert set(found[0]) == {style.colour(0)}
    assert style.colour(0) in found[1]
    assert found[1][0] == style.colour(6)


def test_panels_of_one_metric_have_one_range_and_of_x_where_it_is_the_same() -> None:
    figure, drawn = plt.subplots(1, 4)
    for axes, label, top in zip(drawn, ("step", "step", "epoch", "step"), (2, 8, 4, 3), strict=True):
        axes.plot([0, top], [0, top / 10])
        axes.set(xlabel=label, ylabel="ACC (fraction of 1)")
    drawn[3].set_ylabel("loss")
    before = [(axes.get_xlim(), axes.get_ylim()) for axes in drawn]
    figures.share_ranges(list(drawn))
    after = [(axes.get_xlim(), axes.get_ylim()) for axes in drawn]
    plt.close(figure)
    assert after == [before[1], before[1], (before[2][0], before[1][1]), before[3]]


@pytest.mark.parametrize("width", [1.5, 3.0, 12.0])
def test_a_legend_takes_as_many_columns_as_fit(width: float) -> None:
    figure = plt.figure(figsize=(width, 3), layout="constrained")
    style.legend_below(figure, [style.line(k, f"setting {k}") for k in range(10)], columns=8)
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    assert legend._ncols == {1.5: 1, 3.0: 2, 12.0: 8}[width]
    plt.close(figure)
