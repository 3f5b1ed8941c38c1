"""The commands about runs: status, compare, estimate, evaluate, and what the shell completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from committed import CELL, edit_json, edit_yaml, make_archive, run_folder
from dica.audit import compare
from dica.cli import __main__ as cli
from dica.cli import completion
from dica.cli.runs import _digests_cut, _with_unbegun_joined
from dica.files import UserError, write_json, write_npz
from dica.plan import counted, estimate
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.runs.behaviour import traces
from dica.scores.given import KINDS

DRC = "/".join(CELL)
KMEANS = DRC.replace("/drc/", "/kmeans/")


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    return make_archive(tmp_path_factory.mktemp("cli") / "project", root)


@pytest.fixture
def project(archive: Path, tmp_path: Path, monkeypatch) -> Path:
    folder = Path(shutil.copytree(archive, tmp_path / "project"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def dica(project: Path, monkeypatch, capsys):
    """Call the command in a copy of the archive; returns its exit code and what it printed."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dica", *arguments])
        monkeypatch.setattr(cli.console, "width", 300)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out + captured.err

    return call


def answer(dica, *arguments: str) -> object:
    code, output = dica(*arguments, "--json")
    assert code == 0, output
    return json.loads(output)


def test_status_tells_every_state_apart(dica, project: Path) -> None:
    rows = answer(dica, "status")
    assert {row["state"] for row in rows if "/digits/" in row["path"]} == {"done"}
    waiting = [row["path"] for row in rows if row["state"] == "missing"]
    assert len(waiting) > 2
    for number, name in enumerate(("failed.json", "checkpoint.pt")):
        state = project / "results/state" / waiting[number].rsplit("-", 1)[-1]
        write_json(state / name, {"reason": "loss is not finite"})
    (project / "src/dica/train.py").write_text("# other code\n")
    first, second = sorted((project / "results/runs/drc/digits").glob("*/run.json"))
    trace = traces("drc")["full"]
    edit_json(first, lambda record: record.update(trace=trace))
    edit_json(second, lambda record: record.update(trace={**trace, "digest": "0" * 16}))
    found = {row["path"]: row for row in answer(dica, "status")}
    assert (found[waiting[0]]["state"], found[waiting[0]]["detail"]) == ("failed", "loss is not finite")
    assert "checkpoint" in found[waiting[1]]["detail"]
    (stale,) = [row for row in found.values() if row["state"] == "stale"]  # by its behaviour, not by its text
    assert (project / stale["path"] / "run.json", stale["code"]) == (second, "other behaviour")
    done = {row["path"]: row["code"] for row in found.values() if row["state"] == "done"}
    assert done.pop(first.parent.relative_to(project).as_posix()) == "same behaviour"
    assert list(done.values()) == ["unknown behaviour"] * 2  # K-means has no golden trace
    code, output = dica("status", "--stale")
    assert (code, "code changed since: src/dica/train.py" in output, "not finite" in output) == (0, True, True)
    assert "finished runs: 0 same code, 1 same behaviour, 1 other behaviour, 2 unknown behaviour" in output


def test_data_sets_that_are_not_begun_are_one_row_of_their_method() -> None:
    groups = {
        ("drc", "digits"): Counter(done=2, missing=1),
        ("drc", "stl10"): Counter(missing=5),
        ("drc", "cifar10"): Counter(missing=4),
        ("tcc", "cifar10"): Counter(missing=3),
        ("tcc", "digits"): Counter(failed=1),
    }
    assert _with_unbegun_joined(groups) == [
        (("drc", "digits"), groups["drc", "digits"]),
        (("drc", "2 not begun"), Counter(missing=9)),
        (("tcc", "cifar10"), Counter(missing=3)),
        (("tcc", "digits"), Counter(failed=1)),
    ]


def test_metrics_of_older_conventions_are_stale(dica, project: Path) -> None:
    edit_json(run_folder(project) / "metrics.json", lambda metrics: metrics["headline"].pop("ari"))
    (row,) = [row for row in answer(dica, "status") if row["state"] == "stale"]
    assert "lacks headline.ari" in row["detail"]


def test_collapsed_runs_are_done_and_named(dica, project: Path) -> None:
    edit_json(run_folder(project) / "metrics.json", lambda found: found["headline"].update(largest_cluster_share=0.99))
    code, output = dica("status")
    (line,) = [line for line in output.splitlines() if "collapsed:" in line]
    assert (code, line.startswith("done results/runs/")) == (0, True)
    assert line.endswith("collapsed: 99.0 % of the images in 1 of 10 clusters")


def test_compare_names_what_differs_and_nothing_else(dica, project: Path) -> None:
    folder = run_folder(project).relative_to(project).as_posix()
    assert answer(dica, "compare", folder, folder)["differences"] == {}
    result = answer(dica, "compare", DRC, KMEANS)
    assert "seeds" not in result["differences"]
    assert result["differences"]["parameters"]["method"] == ["drc", "kmeans"]
    values = result["metrics"]["acc"]
    assert values["difference"] == pytest.approx(values["b"] - values["a"]) != 0
    paired = values["paired"]
    assert (paired["seeds"], paired["difference"]) == (2, pytest.approx(values["difference"]))
    assert paired["low"] < paired["difference"] < paired["high"]
    code, output = dica("compare", DRC, KMEANS)
    assert (code, f"{paired['low']:+.4f} to {paired['high']:+.4f}, 2 seeds" in output) == (0, True)

    other = project / "copy"
    shutil.copytree(project / folder, other)
    edit_json(other / "run.json", lambda record: record["versions"].update(torch="9.9"))
    edit_json(other / "run.json", lambda record: record["device"].update(name="another"))
    edit_json(other / "run.json", lambda record: record["sources"].update({"src/dica/train.py": "b" * 64}))
    result = answer(dica, "compare", folder, "copy")
    assert result["metrics"]["acc"]["paired"] is None, "of one seed"
    differences = result["differences"]
    assert differences.keys() == {"environment", "hardware", "code"}
    assert differences["environment"]["torch"][1] == "9.9"
    code, output = dica("compare", folder, "copy")
    assert (code, "other versions of packages" in output, "byte for byte" in output) == (0, True, True)


def test_each_of_several_digests_is_cut() -> None:
    assert _digests_cut(f"{'a' * 64}, {'b' * 40}, –") == f"{'a' * 12}, {'b' * 12}, –"


def test_compare_tells_another_environment_where_both_sides_know_theirs(dica, project: Path) -> None:
    folder = run_folder(project).relative_to(project).as_posix()
    shutil.copytree(project / folder, project / "copy")
    known = {"lock_sha256": "a" * 64, "installed_sha256": "b" * 64}
    edit_json(project / "copy/run.json", lambda record: record.update(environment=known))
    assert answer(dica, "compare", folder, "copy")["differences"] == {}, "an older record does not say"
    edit_json(
        project / folder / "run.json", lambda record: record.update(environment={**known, "installed_sha256": "c" * 64})
    )
    differences = answer(dica, "compare", folder, "copy")["differences"]
    assert differences == {"environment": {"all installed packages": ["c" * 12, "b" * 12]}}
    edit_json(project / folder / "run.json", lambda record: record.update(environment="no mapping"))
    assert answer(dica, "compare", folder, "copy")["differences"] == {}


def test_compare_with_a_commit_a_prefix_and_a_checkout(dica, project: Path, tmp_path: Path) -> None:
    folder = run_folder(project).relative_to(project).as_posix()
    prefix = folder.rsplit("-", 1)[-1][:8]
    there = tmp_path / "there"
    shutil.copytree(project, there)
    edit_json(project / folder / "metrics.json", lambda metrics: metrics["headline"].update(acc=0.5))
    for other in (f"HEAD:{folder}", str(there)):
        result = answer(dica, "compare", other, prefix)
        assert result["differences"] == {}
        assert result["metrics"]["acc"]["b"] == 0.5 != result["metrics"]["acc"]["a"]
    edit_json(project / folder / "run.json", lambda record: record["files"].update({"predictions.npz": "0"}))
    assert "audit both sides" in answer(dica, "compare", f"HEAD:{folder}", prefix)["summary"][0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fff", "no run begins with 'fff'"),
        ("HEAD:results/nowhere", "no run is there"),
        ("nobody:results/nowhere", "no commit 'nobody'"),
        ("dica/table-1/drc/digit/acc", "did you mean dica/table-1/drc/digits/acc"),
        ("drc/table-1/drc/cifar10/acc", "has no run: not run"),
        ("nonsense", "is no run folder"),
    ],
)
def test_a_side_that_is_not_there(dica, name: str, message: str) -> None:
    code, output = dica("compare", name, DRC)
    assert code == 2
    assert message in output


def test_estimates_rest_on_finished_runs_only(dica, project: Path) -> None:
    device = "x86 <test>"
    shutil.rmtree(run_folder(project))
    result = answer(dica, "estimate", "dica", "table-1", "--device", device)
    parts = {(part["method"], part["dataset"]): part for part in result["parts"]}
    assert (parts["drc", "digits"]["rule"], parts["drc", "digits"]["seconds"]) == ("same", 60.0)
    assert parts["kmeans", "digits"]["finished"] == 2
    assert result["total"]["device_hours"] == pytest.approx(1 / 60)
    assert "1,234" in parts["drc", "digits"]["basis"]

    changes = {"drc": {"epochs": 400}, "kmeans": {"restarts": 7}}
    edit_yaml(project / "params/archive.yaml", lambda body: body.update(overrides=changes))
    before = parts["drc", "digits"]
    result = answer(dica, "estimate", "all", "--device", device)
    parts = {(part["method"], part["dataset"]): part for part in result["parts"]}
    assert parts["drc", "digits"]["rule"] == "same"
    assert parts["drc", "digits"]["seconds"] > 2 * before["seconds"], "twice the epochs, two runs"
    assert parts["kmeans", "digits"]["rule"] == "variant"
    assert parts["drc", "cifar10"]["rule"] == "counted"
    code, output = dica("estimate", "all", "--device", device)
    assert (code, "are not in these figures" in output, "rough" in output) == (0, False, True)


def test_the_time_of_shorter_epochs_goes_with_their_batches(project: Path) -> None:
    params = {"epochs": 10, "batch_size": 100, "epoch_batches": 3}
    estimator, whole = estimate.Estimator(project, "results"), {"epochs": 10, "batch_size": 100}
    work = [
        estimator._work({"dataset": "digits", "params": each})
        for each in (params, whole, params | {"epoch_batches": 99})
    ]
    assert work == [10 * 300, 10 * 1797, 10 * 1797]


def test_what_nothing_was_timed_like_is_counted(dica, monkeypatch) -> None:
    monkeypatch.setattr("dica.cli.runs.this_device", lambda: "a device that nobody has")
    result = answer(dica, "estimate", "all")
    total, parts = result["total"], {(part["method"], part["dataset"]): part for part in result["parts"]}
    waiting = total["runs"] - total["finished"]
    assert (total["timed"], total["counted"], total["unknown"]) == (waiting, waiting, 0)
    slow = parts["drc", "cifar10"]
    assert slow["basis"] == "0.05 TFLOP/s in bfloat16 as stated for CPU"

    result = answer(dica, "estimate", "all", "--device", "NVIDIA H100", "--price", "2")
    (quick,) = [part for part in result["parts"] if (part["method"], part["dataset"]) == ("drc", "cifar10")]
    assert quick["seconds"] == pytest.approx(slow["seconds"] * 0.05 / 300)
    assert result["total"]["cost"] == pytest.approx(2 * result["total"]["device_hours"])
    code, output = dica("estimate", "drc", "--device", "NVIDIA H100")
    assert (code, "# counted arithmetic, at 300 TFLOP/s in bfloat16 as stated for NVIDIA H100" in output) == (0, True)
    code, output = dica("status")
    hours = f"about {result['total']['device_hours']:,.1f} h of one NVIDIA H100 as stated"
    assert (code, f"to do: {waiting} runs, counted " in output, hours in output) == (0, True, True)


def test_a_run_that_nobody_counted_is_told_apart(dica, monkeypatch) -> None:
    monkeypatch.setattr(counted, "_counts", dict)
    counted._by_variant.cache_clear()
    total = answer(dica, "estimate", "all", "--device", "NVIDIA H100")["total"]
    assert (total["timed"], total["unknown"]) == (0, total["runs"] - total["finished"])
    code, output = dica("estimate", "all", "--device", "NVIDIA H100")
    assert (code, "python workflow/scripts/counts.py" in output) == (0, True)
    counted._by_variant.cache_clear()


def test_counts_go_at_the_rate_that_finished_runs_of_such_steps_reached(project: Path, monkeypatch) -> None:
    profile = load_profile(project / "params/archive.yaml", project)
    run = next(
        run for run in make_plan(profile, project)["runs"] if run["path"].startswith("results/runs/drc/cifar10/")
    )
    estimator = estimate.Estimator(project, "results")
    whole = counted.counted_work(run, estimator.datasets["cifar10"])

    def after(method: str, work: counted.Work) -> tuple[float, str]:
        done = estimate.Timed(method, "cifar10", run["params"], "card", 70.0, None, "2", 1, 0, 0)
        monkeypatch.setattr(estimate.Estimator, "timed", [done])
        monkeypatch.setattr(estimate.Estimator, "_works", {id(done): work})
        rule, seconds, *_, basis = estimator._counted(run, "card")
        assert rule == "counted"
        return seconds, basis

    seconds, basis = after("drc", whole)
    assert seconds == pytest.approx(70)
    assert basis == f"the rate of 1 finished runs, {whole.flops / 70 / 1e12:.3g} TFLOP/s"
    assert after("crlc", whole)[0] == pytest.approx(70), "of another method, where its own has none"
    small = counted.Work(whole.flops / 20, whole.training / 20, whole.launches, exact=True)
    assert "as stated for CPU" in after("drc", small)[1], "small steps say nothing of large ones"
    other = estimate.Timed("drc", "cifar10", run["params"] | {"batch_size": 7}, "card", 70.0, None, "2", 1, 0, 0)
    monkeypatch.setattr(estimate.Estimator, "timed", [other])
    monkeypatch.setattr(estimate.Estimator, "_works", {id(other): small})
    rule, seconds, *_ = estimator._time(run, "card")
    assert (rule, seconds) == ("variant", pytest.approx(20 * 70))


def test_one_run_can_be_asked_for(dica) -> None:
    (run,) = [row for row in answer(dica, "status") if row["path"].startswith("results/runs/drc/cifar10/s0-")][:1]
    for name in (run["path"], run["path"].rsplit("-", 1)[-1]):
        assert answer(dica, "estimate", name)["total"]["runs"] == 1


def test_a_device_that_is_nowhere_is_refused(dica) -> None:
    code, output = dica("estimate", "all", "--device", "x87")
    assert (code, "device 'x87': no finished run was timed on it" in output) == (2, True)
    code, output = dica("estimate", "dca", "table-1")
    assert (code, "did you mean dica table-1" in output) == (2, True)


def test_wall_time() -> None:
    assert estimate.wall_time([3, 3, 2, 2, 2], 2) == 7
    assert estimate.wall_time([3, 3, 2, 2, 2], 1) == 12
    assert estimate.wall_time([5], 4) == 5
    assert estimate.wall_time([], 4) == 0


def write(path: Path, values: list) -> Path:
    array = np.array(values)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        write_npz(path, {"train_assignment": array})
    elif path.suffix == ".csv":
        path.write_text("image,cluster\n" + "".join(f"{k},{value}\n" for k, value in enumerate(values)))
    else:
        path.write_text("\n".join(map(str, values)))
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_predictions_of_any_kind_are_scored(dica, project: Path, suffix: str) -> None:
    values = [(k + 3) % 10 for k in range(120)]
    values[:12] = [3] * 12
    path = write(project / f"mine{suffix}", values)
    result = answer(dica, "evaluate", path.name, "--dataset", "digits")
    right = sum((k + 3) % 10 == value for k, value in enumerate(values))
    assert (result["acc"], result["split"], result["n"]) == (right / 120, "train", 120)
    assert np.array(result["confusion"]).sum() == 120
    scored = {".csv": "column 'cluster'", ".npz": "array 'train_assignment'"}.get(suffix, "its ")
    assert scored in result["scored"]
    code, output = dica("evaluate", path.name, "--dataset", "digits", "--confusion")
    assert (code, f"{right / 120:.4f}" in output, "clusters (with the class" in output) == (0, True, True)
    assert f"scored: {result['scored']}; order of the samples: {result['order']}" in output


def test_the_column_that_is_scored_can_be_named(dica, project: Path) -> None:
    rows = [f"{119 - k},{k % 10},{(119 - k) % 2}" for k in range(120)]
    (project / "a.csv").write_text("\n".join(["id,label,pred", *rows]))
    code, output = dica("evaluate", "a.csv", "--dataset", "digits")
    assert (code, "a.csv: 'label' and 'pred' may each be the clusters; name the column with --column" in output) == (
        2,
        True,
    )
    found = answer(dica, "evaluate", "a.csv", "--dataset", "digits", "--column", "pred")
    assert (found["scored"], found["order"]) == ("column 'pred'", "by column 'id'")
    even = write(project / "b.txt", [k % 2 for k in range(120)])
    assert found["confusion"] == answer(dica, "evaluate", even.name, "--dataset", "digits")["confusion"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1\n2\nx\n", "a.txt:3: 'x' is no number"),
        ("a.txt", "1 2 3", "has 3 assignments; digits has train 120"),
        ("a.txt", "0.5 " * 120, "a.txt:1: '0.5' is no whole number"),
        ("a.txt", "nan " * 120, "a.txt:1: 'nan' is NaN"),
        ("a.txt", "-1 " * 120, "indices start at 0"),
        ("a.txt", "5000000 " * 120, "has cluster 5000000"),
        ("a.txt", "", "is empty"),
        ("a.csv", "", "is empty"),
        ("a.csv", "id,name\n1,2\n", "call one of them"),
        ("a.npy", "text", "not a readable npy"),
        ("a.npz", "text", "not a readable npz"),
        ("a.pkl", "text", "of unknown kind"),
    ],
)
def test_wrong_predictions_are_one_clear_error(dica, project: Path, name: str, content: str, message: str) -> None:
    (project / name).write_text(content)
    code, output = dica("evaluate", name, "--dataset", "digits")
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_evaluate_names_what_there_is(dica, project: Path) -> None:
    path = write(project / "mine.txt", [0] * 120)
    assert "did you mean digits" in dica("evaluate", path.name, "--dataset", "digit")[1]
    assert "cifar10.ready" in dica("evaluate", path.name, "--dataset", "cifar10")[1]
    assert "no such file" in dica("evaluate", "other.txt", "--dataset", "digits")[1]
    assert "has no split 'test'" in dica("evaluate", path.name, "--dataset", "digits", "--split", "test")[1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dica audit d", {"dica", "drc"}),
        ("dica audit dica t", {"table-1"}),
        ("dica audit dica table-1 drc/", {"drc/digits/acc", "drc/digits/nmi", "drc/digits/ari"}),
        ("dica evaluate x --dataset d", {"digits"}),
        ("dica estimate k", {"kmeans"}),
    ],
)
def test_the_shell_completes(project: Path, root: Path, words: str, offered: set[str]) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "_DICA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['dica']; from dica.cli.__main__ import main; main()",
    ]
    done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True)
    assert set(done.stdout.split()) == offered, done.stderr


def test_completion_offers_nothing_outside_a_project(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    context = type("Context", (), {"params": {}})()
    assert completion.papers(context, "") == []
    assert completion.profiles(context, "") == []
    (tmp_path / "Snakefile").touch()
    (tmp_path / "params").mkdir()
    with pytest.raises(UserError, match="both sides are checkouts"):
        compare.Finder(tmp_path, "results").sides(str(tmp_path), str(tmp_path))


def test_profiles_are_completed(project: Path) -> None:
    context = type("Context", (), {"params": {}})()
    assert "params/archive.yaml" in completion.profiles(context, "")
    assert "params/drc.yaml" not in completion.profiles(context, "")
