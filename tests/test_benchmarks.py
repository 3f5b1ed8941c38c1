"""The benchmarks run: every part of them, with tiny sizes. What they measure is for quiet machines."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dica.engine.loop import Trainer
from dica.files import UserError, canonical_json, read_json, write_json
from tiny import make_prepared

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Benchmarks are scripts: they find each other beside themselves."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(monkeypatch, module, *arguments: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    return module.main()


def test_the_gpu_benchmark_refuses_without_a_gpu(monkeypatch, capsys) -> None:
    import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, gpu) == 2
    assert capsys.readouterr().err == "error: torch sees no CUDA device; --dry tries this file on the CPU\n"


def test_every_part_of_the_gpu_benchmark_runs_dry(monkeypatch, tmp_path: Path) -> None:
    import gpu

    measured = (
        "imc-swav",
    )  # many crops; the call below has DCCM, which has a network and an order of steps of its own
    run(monkeypatch, gpu, "--dry", "--methods", *measured, "--out", str(tmp_path))
    found = rows(tmp_path / "gpu.csv")
    steps = {row["method"]: row for row in found if row["what"] == "step"}
    assert set(steps) == set(measured)
    assert all(float(row["tflops"]) > 0 for row in steps.values())
    assert [row["what"] for row in found[:2]] == ["bf16 product", "copy"]


def test_the_one_call_of_a_gpu_is_rehearsed(monkeypatch, capsys, tmp_path: Path) -> None:
    import gpu_call

    assert run(monkeypatch, gpu_call, "--dry", "--minutes", "9", "--out", str(tmp_path / "out")) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["tests"].startswith("exit code 0")
    assert {row["what"] for row in rows(tmp_path / "out/gpu.csv") if row.get("method")} == {
        "augmentation", "network", "step"}  # fmt: skip
    assert said["training"].startswith("2 epochs")
    assert read_json(tmp_path / "out/run/run.json")["id"] == read_json(tmp_path / "out/config.json")["id"]


def test_the_call_takes_the_longest_run_that_fits_and_ends_in_time(tmp_path: Path) -> None:
    import gpu_call

    ladder = gpu_call.planned(ROOT)
    assert [config["params"]["epochs"] for config in ladder] == list(gpu_call.EPOCHS)
    assert [config["params"]["schedule"]["milestones"][-1] for config in ladder] == [8, 20, 40, 80]
    around = gpu_call.AROUND_S
    assert gpu_call.longest(ladder, 4.0, around + 4.0 * 1.15 * 60)["variant"] == "gpu-50"
    with pytest.raises(UserError, match=r"10 epochs of 40\.0 s do not fit into 300 s"):
        gpu_call.longest(ladder, 40.0, 300)
    call = gpu_call.Call(1.0, tmp_path, dry=True)
    assert call.command("slow", ["-c", "import time; time.sleep(60)"], 0.5).said == "stopped after 0 s"
    assert not call.command("bad", ["-c", "raise SystemExit('this is wrong')"], 9).ok


def test_the_gpu_benchmark_measures_the_parameters_of_the_archive() -> None:
    import gpu

    stored = canonical_json(read_json(gpu.PARAMS))
    assert stored == canonical_json(gpu.planned()), "python benchmarks/gpu.py --write-params"
    assert read_json(gpu.PARAMS)["imc-swav"]["params"]["precision"] == "bfloat16"


@pytest.mark.parametrize("method", ["", "dccm"])
def test_the_usual_loop_sees_what_ours_sees(method: str) -> None:
    """A comparison of speeds is one of equals: same shapes and, over many draws, like brightness."""
    import cpu_path

    from dica.rng import generator
    from dica.views import pipeline as augment

    ours = augment.build_pipeline(cpu_path.DCCM_VIEWS["augmented"] if method else cpu_path.VIEWS)
    images = torch.from_numpy(cpu_path.load_images(64)).permute(0, 3, 1, 2)
    one, other = ours(images, generator(0, "x")), cpu_path.UsualPipeline(ours)(images, generator(0, "x"))
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    assert abs(float(one.mean() - other.mean())) < 0.05


def test_a_step_of_the_cpu_benchmark_goes_through_every_inner_step(monkeypatch) -> None:
    import cpu_path

    def once(tasks: dict, repeats: int) -> dict:
        for task in tasks.values():
            task()
        return {name: [1.0] for name in tasks}

    monkeypatch.setattr(cpu_path, "interleaved", once)
    steps = []
    module = sys.modules["torch.optim.rmsprop"]
    plain = module.rmsprop
    monkeypatch.setattr(module, "rmsprop", lambda *args, **kw: steps.append(1) or plain(*args, **kw))
    (dccm,) = [step for step in cpu_path.STEPS if step[0] == "dccm"]
    row = cpu_path.method_step(*dccm, batch_size=64, repeats=1)
    assert row["what"] == "step of dccm, conv-8 at 8 px"
    assert len(steps) == 2 * 2 * 2, "two sides, two inner batches of 32, two augmentations"


def test_ways_to_make_views_are_told_in_ratios_of_what_is_there(monkeypatch) -> None:
    import cpu_path

    monkeypatch.setattr(cpu_path.shutil, "which", lambda name: None)  # to compile takes a minute
    monkeypatch.setattr(cpu_path.importlib.util, "find_spec", lambda name: None)
    (row,) = cpu_path.data_path(count=16, batch=8, repeats=1)
    assert (row["what"], float(row["ratio"]) > 0) == ("data path, two 32 px views", True)


def test_the_shares_of_a_step_are_those_of_its_operations() -> None:
    import shares

    weights, images = torch.rand(16, 16, 3, 3), torch.rand(4, 16, 32, 32)
    row = shares.shares("convolution", lambda: torch.nn.functional.conv2d(images, weights).relu_())
    assert float(row["GFLOP"]) == pytest.approx(2 * 4 * 16 * 16 * 9 * 30 * 30 / 1e9, rel=0.01)
    assert int(row["convolutions"].rstrip("%")) > 50
    assert (row["products"], row["batch norm"]) == ("0%", "0%")
    assert int(row["of a product's rate"].rstrip("%")) > 0


def test_the_pilot_of_equal_arithmetic_trains_and_times(monkeypatch, tmp_path: Path) -> None:
    import equal

    monkeypatch.setattr(equal, "EPOCHS", 2)
    monkeypatch.setattr(Trainer, "trial", lambda trainer, seconds: 1.0)
    images = make_prepared(tmp_path / "data", {"train": 300}, size=32, channels=3)
    run(monkeypatch, equal, "--seconds=3", "--networks=1", "--methods=tcc", f"--data={images}", f"--out={tmp_path}")
    pilot, timed = rows(tmp_path / "equal.csv")
    assert pilot["what"] == "pilot: resnet8 of 8 channels, stem pica"
    assert (pilot["steps"], pilot["seconds"]) == ("4", "3.0"), "two batches of 128 in each epoch, as many as there are"
    assert 0 < float(pilot["loss"]) < 7
    assert (timed["what"], timed["seconds"]) == ("run: tcc", "20.0"), "all its epochs"
    assert float(timed["tflop"]) > 0


def test_scoring_and_planning_can_be_measured(monkeypatch, tmp_path: Path) -> None:
    import evaluation
    import plan

    run(monkeypatch, evaluation, "--sizes", "100", "--repeats", "1", "--out", str(tmp_path))
    assert {row["images"] for row in rows(tmp_path / "evaluation.csv")} == {"100"}
    assert (tmp_path / "evaluation.svg").read_text().startswith("<?xml")
    runs = plan.make_project(tmp_path / "project", 30)
    assert 20 <= runs <= 40


def test_the_pages_quote_what_was_measured(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "workflow/scripts/quoted.py", "--check"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_commands_are_timed_in_turns_in_both_builds(monkeypatch, tmp_path: Path) -> None:
    import commands

    asked = []

    def seconds(command: list[str], folder: Path) -> float:
        inputs = [part for part in command if part.endswith((".py", ".json", ".npz")) and "/out/" not in part]
        assert all((folder / part).is_file() for part in inputs), inputs
        asked.append(folder.name)
        return {"then": 3.0, "project": 8.0}.get(folder.name, 2.0)

    monkeypatch.setattr(commands, "seconds", seconds)
    monkeypatch.setattr(commands.compileall, "compile_dir", lambda *_, **__: None)
    run(monkeypatch, commands, "--then", "HEAD", "--repeats", "1", "--runs", "20", "--out", str(tmp_path))
    found = {row["what"]: row for row in rows(tmp_path / "commands.csv")}
    assert asked[:2] == ["then", "now"]
    assert {row["ratio"] for what, row in found.items() if "against" not in what} == {"1.50"}
    assert [row["ratio"] for what, row in found.items() if "against" in what] == ["4.00"]
    monkeypatch.setattr(commands, "seconds", lambda command, folder: {"then": 6.0}.get(folder.name, 2.0))
    run(monkeypatch, commands, "--then", "HEAD", "--repeats", "1", "--only", "dica status", "--out", str(tmp_path))
    again = rows(tmp_path / "commands.csv")
    assert [row["what"] for row in again] == list(found), "lines that were not measured again stay"
    assert [row["what"] for row in again if row["ratio"] == "3.00"] == ["dica status"]


def test_the_trainings_that_both_builds_are_timed_on_are_runs_of_this_one(root: Path) -> None:
    import commands

    for method in commands.TRAINED:
        command = commands.training(method, root, "out")
        assert read_json(command[command.index("--config") + 1])["method"] == method
    with pytest.raises(SystemExit, match=r"no run of kmeans \(short\)"):
        commands.training("kmeans", root, "out")


def test_memory_is_the_peak_of_a_training_that_is_stopped(monkeypatch, tmp_path: Path) -> None:
    import commands

    def until_it_runs(_: float) -> None:
        for _ in range(2000):
            if (tmp_path / "runs").exists():
                return
            threading.Event().wait(0.01)

    training = tmp_path / "training"
    training.write_text(
        f"#!{sys.executable}\nimport json, pathlib, signal, sys\n"
        "held = b'x' * 300_000_000\n"
        "config = json.loads(pathlib.Path(sys.argv[sys.argv.index('--config') + 1]).read_text())\n"
        "code = 75 if config == {'variant': 'full', 'dataset': 'toys', 'data_id': 'now'} else 2\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))\n"
        f"pathlib.Path({str(tmp_path / 'runs')!r}).touch()\nsignal.pause()\n"
    )
    training.chmod(0o755)
    kept = {"id": "1", "variant": "full", "dataset": "toys-small", "data_id": "then"}
    write_json(tmp_path / "results/runs/drc/toys-small/s0-1/config.json", kept)
    write_json(tmp_path / "data/prepared/toys/manifest.json", {"data_id": "now"})
    monkeypatch.setattr(commands, "MEASURED", "toys")
    monkeypatch.setattr(commands.sys, "executable", str(training))
    monkeypatch.setattr(commands.time, "sleep", until_it_runs)
    assert 286 < commands.peak("drc", tmp_path, str(tmp_path)) < 400
    (tmp_path / "runs").unlink()
    write_json(tmp_path / "data/prepared/toys/manifest.json", {"data_id": "other"})
    with pytest.raises(SystemExit, match=r"drc on toys.*exit 2"):
        commands.peak("drc", tmp_path, str(tmp_path))


def test_steps_are_timed_in_turns_in_both_builds(monkeypatch, root: Path, tmp_path: Path) -> None:
    import steps

    first = next(iter(steps.STEPS))
    assert steps.measured(first, root, {})[0] > 0
    plain, half = (steps.measured(first, root, {"half": each})[1] for each in (False, True))
    assert plain == pytest.approx(half, rel=0.01)
    assert plain != half, "bfloat16 rounds"
    monkeypatch.setattr(steps, "unpack", lambda commit, folder: folder)
    monkeypatch.setattr(steps, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(
        steps, "measured", lambda _, folder, how: [3.0 if folder.name == "then" else 2.0, 1.5 + how.get("half", 0)]
    )
    run(monkeypatch, steps, "--repeats", "1", "--out", str(tmp_path))
    found = rows(tmp_path / "steps.csv")
    assert [row["ratio"] for row in found] == ["1.50"] * 2 * len(steps.STEPS)
    losses = [row["loss in float32, in bfloat16"] for row in found]
    assert losses == [""] * len(steps.STEPS) + ["1.5, 2.5"] * len(steps.STEPS)
