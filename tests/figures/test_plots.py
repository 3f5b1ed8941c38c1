"""Every plot and every analysis behind one, on tiny runs that are really trained; the figures of the five papers."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from dica import analyse, train
from dica.figures import curves, draw, pictures, to_bytes
from dica.figures.panel import Panel
from dica.files import UserError, load_arrays, read_json, write_json, write_npz
from dica.plan.artefacts import PLOTS, analyses, analysis_path, load_artefacts
from dica.plan.counted import Work
from dica.report import runs as report_runs
from dica.scores import evaluation, metrics
from dica.scores import outside as scoring
from tiny import make_prepared, tiny_config

CLASSES = 8
RUNS = (("full", 0, {}), ("full", 1, {}), ("prototypes-100", 0, {"num_prototypes": 20}))
ROWS = """
- {label: IMC-SwAV, key: imc, method: imc-swav}
- {label: fewer prototypes, key: few, method: imc-swav, variant: prototypes-100}
- {label: never run, key: never, method: imc-swav, variant: prototypes-300}
"""
PLOT_OPTIONS = {
    "progress": {"x": "seconds", "metrics": ["acc", "nmi"]},
    "sweep": {"x": "num_prototypes", "x_label": "prototypes", "log": True},
    "tsne": {"layers": ["probability", "backbone", "projection"]},
    "cases": {"classes": 3},
    "panels": {
        "columns": 3,
        "panels": [
            {"plot": "confusion", "title": "Who is who", "rows": ["imc"]},
            {"plot": "progress", "history": ["L_swap"], "rows": ["imc", "few"]},
            {"plot": "sweep", "x": "views/low/random_resized_crop/size", "series": "num_prototypes"},
        ],
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, root: Path) -> tuple[Path, dict]:
    """A project with a figure for each plot, two trained settings (one with two seeds) and their analyses."""
    folder = tmp_path_factory.mktemp("plots")
    for part in ("params", "workflow/schemas"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("artefacts", "claims"))
    write_declarations(folder)
    make_prepared(folder / "data/prepared/digits", {"train": 48})
    write_npz(folder / "data/labels/digits.npz", {"train": (np.arange(48) % CLASSES).astype(np.int16)})
    write_json(folder / "data/labels/digits.json", {"classes": [f"bar {k}" for k in range(CLASSES)]})
    artefacts = load_artefacts(folder, ["demo"])
    plan = {"profile": "demo", "artefacts": [a.address for a in artefacts], "runs": []}
    for variant, seed, change in RUNS:
        plan["runs"].append(train_tiny(folder, variant, seed, change, plan["artefacts"]))
    waiting = {**tiny_config("imc-swav", "prototypes-300"), "variant": "prototypes-300"}
    path = f"results/runs/imc-swav/digits/s0-{waiting['id']}"
    plan["runs"].append({**waiting, "path": path, "needed_by": plan["artefacts"]})
    for artefact in artefacts:
        for kind, run in analyses(plan, artefact):
            if (folder / run["path"] / "run.json").is_file():
                analyse.analyse(kind, trained(folder, run), folder / analysis_path("results", kind, run["path"]))
    return folder, plan


def write_declarations(folder: Path) -> None:
    figures = {}
    for plot in PLOTS:
        spec = {"kind": "figure", "plot": plot, "title": plot, "seeds": 2, "metrics": ["acc", "nmi", "ari"]}
        if plot != "surfaces":
            spec.update(datasets=[{"dataset": "digits", "label": "Digits"}], rows=yaml.safe_load(ROWS))
        if plot in PLOT_OPTIONS:
            spec["options"] = PLOT_OPTIONS[plot]
        figures[f"figure-{plot}"] = spec
    (folder / "params/artefacts").mkdir(parents=True)
    body = {"paper": "demo", "title": "Plots", "artefacts": figures}
    (folder / "params/artefacts/demo.yaml").write_text(yaml.safe_dump(body, sort_keys=False))


def train_tiny(folder: Path, variant: str, seed: int, change: dict, needed_by: list[str]) -> dict:
    settings = {**tiny_config("imc-swav", "full", seed, num_clusters=CLASSES, **change), "variant": variant}
    path = f"results/runs/imc-swav/digits/s{seed}-{settings['id']}"
    models = folder / "results/models/imc-swav/digits" / Path(path).name
    write_json(folder / "config.json", settings)
    where = ("--data", folder / "data/prepared/digits", "--out", folder / path, "--models", models)
    options = ["--config", folder / "config.json", *where, "--state", folder / "state" / settings["id"]]
    assert train.main([*map(str, options), "--device", "cpu"]) == 0
    labels = folder / "data/labels/digits.npz"
    out = folder / path
    evaluation.evaluate_files(out / "predictions.npz", labels, out / "metrics.json", settings["params"]["eval_split"])
    scored = read_json(out / "metrics.json")
    write_json(out / "metrics.json", {**scored, "id": settings["id"]})
    record = read_json(out / "run.json")  # as a semi-supervised run would have it
    record["method_record"] = {"labelled": [17, 3, 8, 0], "classes": [1, 3, 0, 0]}
    write_json(out / "run.json", record)
    return {**settings, "path": path, "needed_by": needed_by}


def trained(folder: Path, run: dict) -> analyse.Trained:
    place = "/".join(Path(run["path"]).parts[-3:])
    labels = folder / "data/labels/digits.npz"
    models, data = folder / "results/models" / place, folder / "data/prepared/digits"
    return analyse.Trained(folder / run["path"], models, data, labels)


def figure_of(project: tuple[Path, dict], plot: str, **change: object):
    folder, plan = project
    (artefact,) = load_artefacts(folder, [f"demo figure-{plot}"])
    artefact.options.update(change)
    return draw(artefact, plan, folder, "results")


def analysis(project: tuple[Path, dict], kind: str) -> dict[str, np.ndarray]:
    folder, plan = project
    return load_arrays(folder / analysis_path("results", kind, plan["runs"][0]["path"]))


@pytest.mark.parametrize("plot", PLOTS)
def test_every_plot_draws_what_is_there_and_names_what_is_not(project, plot: str) -> None:
    figure, words = figure_of(project, plot)
    assert len(words) > 40
    if plot != "surfaces":
        assert "never run" in words
    figure.draw_without_rendering()
    for legend in [*figure.legends, *(legend for sub in figure.subfigs for legend in sub.legends)]:
        box = legend.get_window_extent()
        covered = [axes for axes in figure.axes if axes.axison and axes.get_window_extent().overlaps(box)]
        assert not covered, "the legend covers data"
    plt.close(figure)


@pytest.mark.parametrize(("plot", "kind"), [("tsne", "png"), ("cases", "svg"), ("gradcam", "svg")])
def test_bytes_repeat(project, plot: str, kind: str) -> None:
    files = []
    for _ in range(2):
        figure, _ = figure_of(project, plot)
        files.append(to_bytes(figure, kind))
        plt.close(figure)
    assert files[0] == files[1]
    assert b"http" not in files[0].split(b"</metadata>")[-1].replace(b"http://www.w3.org", b"")


@pytest.mark.parametrize(
    ("plot", "labels"),
    [
        ("progress", {"training time (s)", "ACC (fraction of 1)", "NMI (fraction of 1)"}),
        ("sweep", {"prototypes", "metric (fraction of 1)"}),
        ("bcubed", {"BCubed recall (fraction of 1)", "BCubed precision (fraction of 1)"}),
        ("largest", {"largest probability of an image", "share of images (fraction of 1)"}),
        ("confusion", {"class of the predicted cluster", "true class", "images (number)"}),
        ("variance", {"variance of probabilities (no unit)"}),
        ("jsd", {"image, second view", "image, first view", "Jensen–Shannon divergence (nat)"}),
        ("tsne", {"t-SNE 1", "t-SNE 2"}),
        ("bars", {"ACC (fraction of 1)"}),
    ],
)
def test_axes_say_what_they_show_and_in_what_unit(project, plot: str, labels: set[str]) -> None:
    figure, _ = figure_of(project, plot)
    found = {text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if text}
    assert found == labels
    plt.close(figure)


def test_the_confusion_figure_counts_as_the_report_and_dica_evaluate(project, root: Path, tmp_path: Path) -> None:
    """Unlabelled and unjudged images count in none of the three; a cluster without a class is shown in all."""
    plan = project[1]
    folder = Path(shutil.copytree(project[0], tmp_path / "project"))
    labels = np.where(np.arange(48) % 5 == 0, -1, np.arange(48) % 3).astype(np.int16)
    write_npz(folder / "data/labels/digits.npz", {"train": labels})
    write_json(folder / "data/labels/digits.json", {"classes": ["a", "b", "c"]})
    path = folder / plan["runs"][0]["path"] / "predictions.npz"
    stored = load_arrays(path)
    judged = np.arange(48) % 7 != 0
    write_npz(path, {**stored, "train_judged": judged, "train_assignment": (np.arange(48) % 4).astype(np.int16)})
    figure, words = figure_of((folder, plan), "confusion")
    axes = figure.axes[0]
    drawn = np.zeros((3, CLASSES), dtype=int)
    for text in axes.texts:
        drawn[int(text.get_position()[1]), int(text.get_position()[0])] = int(text.get_text())
    counted = (labels >= 0) & judged
    assert drawn.sum() == counted.sum()
    headings = [label.get_text() for label in axes.get_xticklabels()]
    assert headings[:3] == ["a", "b", "c"]
    assert all(heading.startswith("none (") for heading in headings[3:])
    assert f"of {counted.sum()} right" in words
    plt.close(figure)
    truth = report_runs.Truth({"train": labels}, ("a", "b", "c"))
    shown = report_runs.confusion(path, truth, "train", by_identity=False)
    assert [[count for count, _ in cells] for _, cells in shown["rows"]] == drawn.tolist()
    np.save(tmp_path / "a.npy", np.where(judged, np.arange(48) % 4, 0))
    write_npz(folder / "data/labels/digits.npz", {"train": np.where(judged, labels, -1)})
    shutil.copytree(root / "params", folder / "params", dirs_exist_ok=True)
    scored = scoring.score(tmp_path / "a.npy", "digits", folder, num_clusters=CLASSES)
    order = metrics.Confusion(np.array(scored["confusion"]), np.array(scored["map"])).order
    assert np.array(scored["confusion"])[order].T.tolist() == drawn.tolist()


def test_curves_are_those_of_the_looks(project) -> None:
    folder, plan = project
    figure, words = figure_of(project, "progress", x="epoch", metrics=["acc"])
    few = next(run for run in plan["runs"] if run["variant"] == "prototypes-100")
    trace = load_arrays(folder / few["path"] / "trace.npz")
    true = load_arrays(folder / "data/labels/digits.npz")["train"][trace["train_index"]]
    expected = [metrics.accuracy(true, guess) for guess in trace["train_assignment"]]
    lines = [line for line in figure.axes[0].lines if np.allclose(line.get_ydata(), expected)]
    assert lines
    assert list(lines[0].get_xdata()) == [0, 1, 2]
    assert f"fewer prototypes ACC {expected[-1]:.3g}" in words
    plt.close(figure)


@pytest.mark.parametrize(
    ("plot", "change", "said"),
    [
        ("progress", {"x": "epoch"}, "Seeds shown: 2 for IMC-SwAV; 1 for fewer prototypes. At the end: IMC-SwAV"),
        ("progress", {}, "fewer prototypes. At the end (mean of the seeds, each at its own end): IMC-SwAV"),
        ("progress", {"history": ["L_swap"], "x": "epoch"}, "Seeds shown: 2 for IMC-SwAV; 1 for fewer prototypes."),
        ("sweep", {}, "small circles: seeds. Seeds shown: 1 at 20; 2 at 100. ACC: "),
        ("sweep", {"series": "batch_size"}, "Seeds shown: 1 for batch_size 16 at 20; 2 for batch_size 16 at 100."),
    ],
)
def test_a_figure_says_how_many_seeds_it_shows(project, plot: str, change: dict, said: str) -> None:
    figure, words = figure_of(project, plot, **change)
    plt.close(figure)
    assert said in words


def test_sweeps_of_a_figure_have_one_range_that_its_curves_do_not_widen(project) -> None:
    sweeps = [{"plot": "sweep", "x": x, "metrics": ["acc"]} for x in ("num_prototypes", "lr")]
    parts = [*sweeps, {"plot": "sweep", "x": "lr", "metrics": ["acc"], "rows": ["few"]}]
    figure, _ = figure_of(project, "panels", panels=[*parts, {"plot": "progress", "metrics": ["acc"]}])
    *limits, over_time = [axes.get_ylim() for axes in figure.axes]
    places = [axes.get_xlim() for axes in figure.axes]
    plt.close(figure)
    assert limits[0] == limits[1] == limits[2] != over_time
    assert places[0] != places[1] == places[2]


def unwatch(monkeypatch, variant: str) -> None:
    looks = Panel.looks
    monkeypatch.setattr(Panel, "looks", lambda self, run: None if run.plan["variant"] == variant else looks(self, run))


def test_only_lines_that_are_drawn_stand_in_the_legend(project, monkeypatch) -> None:
    unwatch(monkeypatch, "prototypes-100")
    figure, words = figure_of(project, "progress", x="epoch", metrics=["acc"])
    (legend,) = [*figure.legends, *(legend for sub in figure.subfigs for legend in sub.legends)]
    assert "fewer prototypes" not in {text.get_text() for text in legend.texts}
    assert "Not watched while training: fewer prototypes." in words
    plt.close(figure)


def test_curves_over_arithmetic_end_at_what_the_epochs_are_counted_as(project, monkeypatch) -> None:
    """A run that was not watched is one mark, at its number on all images."""
    monkeypatch.setattr(curves, "counted_work", lambda run, entry: Work(9e12, 6e12, 1, exact=True))
    monkeypatch.setattr(curves, "load_datasets", lambda root: {"digits": {}})
    unwatch(monkeypatch, unwatched := "prototypes-100")
    figure, words = figure_of(project, "progress", x="tflop", metrics=["acc"])
    lines = {tuple(line.get_xdata()): line.get_ydata() for line in figure.axes[0].lines}
    assert set(lines) == {(0, 3, 6), (6,)}, "two epochs of 3 TFLOP each; predictions are not in them"
    (run,) = [run for run in project[1]["runs"] if run["variant"] == unwatched]
    assert list(lines[6,]) == [read_json(project[0] / run["path"] / "metrics.json")["headline"]["acc"]]
    assert figure.axes[0].get_xlabel() == "counted arithmetic of training (TFLOP)"
    assert "A mark alone: of all images" in words
    plt.close(figure)
    monkeypatch.setattr(curves, "counted_work", lambda run, entry: Work(9e12, 6e12, 1, exact=False))
    with pytest.raises(UserError, match="its arithmetic was not counted"):
        figure_of(project, "progress", x="tflop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "'colour' is not an option of this plot; it has: history"),
        ({"x": "weeks"}, "x is 'weeks', allowed: epoch, seconds, step, tflop"),
    ],
)
def test_an_unknown_option_is_refused(project, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"demo.yaml: artefacts.figure-progress: options: {message}"):
        figure_of(project, "progress", **change)


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({"plot": "confusion", "rows": ["imv"]}, "no row 'imv'; there are: imc, few, never"),
        ({"plot": "sweep", "x": "views/low/random_resized_crop/ratio"}, "is no number in the parameters of its runs"),
    ],
)
def test_a_wrong_panel_is_refused(project, panel: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        figure_of(project, "panels", panels=[panel])


def test_an_analysis_of_another_run_is_not_shown(project) -> None:
    folder, plan = project
    path = folder / analysis_path("results", "jsd", plan["runs"][0]["path"])
    content = path.read_bytes()
    write_npz(path, {**load_arrays(path), "of": np.array("0" * 64)})
    _, words = figure_of(project, "jsd")
    path.write_bytes(content)
    assert "not analysed yet: IMC-SwAV" in words


def test_an_analysis_is_small_and_repeats(project, tmp_path: Path) -> None:
    folder, plan = project
    for kind in ("gradcam", "neighbours", "jsd"):
        first = folder / analysis_path("results", kind, plan["runs"][0]["path"])
        analyse.analyse(kind, trained(folder, plan["runs"][0]), tmp_path / "again.npz")
        assert (tmp_path / "again.npz").read_bytes() == first.read_bytes()
    assert max(path.stat().st_size for path in (folder / "results/analyses").rglob("*.npz")) < 200_000


def test_cases_are_what_their_titles_say(project) -> None:
    folder, plan = project
    run, found = trained(folder, plan["runs"][0]), analysis(project, "cases")
    for k, by_kind in zip(found["class"], found["index"], strict=True):
        for kind, (own, given) in enumerate([(True, True), (True, False), (False, True)]):
            rows = by_kind[kind][by_kind[kind] >= 0]
            assert ((run.labels[rows] == k) == own).all()
            assert ((run.predicted[rows] == k) == given).all()
            assert (np.diff(run.stored[1][rows].astype(float)) <= 0).all(), "most confident first"
    assert (found["index"] >= 0).sum() == int(found["count"]) == len(pictures.unpack(found))
    original = np.load(folder / "data/prepared/digits/train.npy")[found["index"][0, 0, 0], :, :, 0]
    if found["tile"][0, 0, 0] >= 0:
        thumbnail = pictures.unpack(found)[found["tile"][0, 0, 0]]
        assert np.corrcoef(thumbnail[:, :, 0].ravel(), original.ravel())[0, 1] > 0.95


def test_a_class_without_cases_of_a_kind_says_none(project, monkeypatch) -> None:
    analysed = Panel.analysed

    def without(self, place) -> dict[str, np.ndarray]:
        """The first class has no false negatives, and none has false positives."""
        found = {**analysed(self, place)}
        found["tile"] = found["tile"].copy()
        found["tile"][0, 1] = found["tile"][:, 2] = -1
        found["tile"][1:, 1, 0] = 0
        return found

    monkeypatch.setattr(Panel, "analysed", without)
    figure, words = figure_of(project, "cases")
    said = [[text.get_position()[1] for text in axes.texts if text.get_text() == "none"] for axes in figure.axes]
    limits = {(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}
    plt.close(figure)
    assert said[1] == [0.5], "in the middle of the first row"
    assert len(said[2]) == 3
    assert len(limits) == 1, "tiles of one size"
    assert "over a failure its other class (predicted for a false negative, true for a false positive)" in words


def test_only_the_kinds_of_cases_that_are_shown_are_explained(project) -> None:
    for kinds, said in ((["success"], "a class a row. Shown"), (["false positive"], "(true for a false positive)")):
        figure, words = figure_of(project, "cases", kinds=kinds)
        plt.close(figure)
        assert said in words


def test_embeddings_of_several_outputs_come_output_by_output_with_letters(project) -> None:
    figure, _ = figure_of(project, "tsne", layers=["probability", "backbone"])
    titles = [axes.get_title("left") for axes in figure.axes]
    plt.close(figure)
    assert titles == [
        "(a) IMC-SwAV: assignment probability",
        "(b) fewer prototypes: assignment probability",
        "(c) IMC-SwAV: features",
        "(d) fewer prototypes: features",
    ]


def test_neighbours_begin_with_the_image_and_get_less_alike(project) -> None:
    found = analysis(project, "neighbours")
    right = found["predicted"][:, 0] == found["label"][:, 0]
    assert (np.sort(~right) == ~right).all(), "right ones come first"
    assert (np.diff(found["cosine"].astype(float), axis=1) <= 0).all()
    assert all(len(set(row)) == len(row) for row in found["index"].tolist())


def test_divergences_are_within_their_bounds(project) -> None:
    matrix = analysis(project, "jsd")["jsd"]
    assert matrix.shape == (32, 32)
    assert matrix.min() >= -1e-6
    assert matrix.max() <= np.log(2) + 1e-6
    assert np.diag(matrix).mean() < matrix.mean()


def test_curves_of_pairs_are_bcubed(project) -> None:
    folder, plan = project
    run, found = trained(folder, plan["runs"][0]), analysis(project, "stages")
    stages = load_arrays(run.models / "stages.npz")
    label = load_arrays(run.labels_file)["train"][stages["train_index"]]
    p = stages["train_probability"][-1].astype(np.float64)
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    for at in (3, 12):
        graph = unit @ unit.T >= found["threshold"][at]
        np.fill_diagonal(graph, True)
        expected = metrics.bcubed(graph, label)
        assert found["precision"][-1, at] == pytest.approx(expected["precision"], abs=1e-3)
        assert found["recall"][-1, at] == pytest.approx(expected["recall"], abs=1e-3)
    assert found["intra"][-1] == pytest.approx(metrics.variance(p, label)["intra"])


def test_labelled_images_come_by_class(project) -> None:
    found = analysis(project, "labelled")
    assert found["label"].tolist() == [0, 0, 1, 3]
    assert found["index"].tolist() == [0, 8, 17, 3]


@pytest.mark.parametrize(
    ("damage", "kind", "code", "message"),
    [
        (lambda run: (run.folder / "predictions.npz").write_bytes(b"x"), "cases", 3, "changed since the run"),
        (lambda run: (run.models / "stages.npz").unlink(), "stages", 3, "missing or changed"),
        (lambda run: (run.models / "weights.safetensors").unlink(), "embedding", 2, "no such file"),
        (
            lambda run: write_json(run.folder / "run.json", unlabelled(run)),
            "labelled",
            2,
            "only semi-supervised",
        ),
    ],
)
def test_nothing_is_analysed_that_is_not_as_recorded(
    project, tmp_path: Path, capsys, damage, kind: str, code: int, message: str
) -> None:
    folder, plan = project
    source = trained(folder, plan["runs"][0])
    run = analyse.Trained(tmp_path / "run", tmp_path / "models", source.data, source.labels_file)
    shutil.copytree(source.folder, run.folder)
    shutil.copytree(source.models, run.models)
    damage(run)
    where = ("--run", run.folder, "--models", run.models, "--data", run.data, "--labels", run.labels_file)
    assert analyse.main([kind, *map(str, where), "--out", str(tmp_path / "out.npz")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def unlabelled(run: analyse.Trained) -> dict:
    return {**read_json(run.folder / "run.json"), "method_record": {}}
