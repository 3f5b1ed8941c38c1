"""The training command: its record, its refusals, its schedules, and what it must not import."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dica import methods, train
from dica.data.splits import DataInfo, require_enough, splits_of
from dica.engine import outputs
from dica.engine.optim import learning_rate, uncompiled
from dica.files import UserError, read_json, sha256_bytes, sha256_file, write_json
from dica.runs import record
from dica.runs.behaviour import trace_of
from dica.runs.files import PACKAGE
from dica.runs.ids import run_id
from tiny import gradient_methods, make_prepared, make_trainer, tiny_config


def arguments(tmp_path: Path, settings: dict, data: Path) -> list[str]:
    write_json(tmp_path / "given.json", settings)
    return [
        *("--config", str(tmp_path / "given.json"), "--data", str(data), "--out", str(tmp_path / "out")),
        *("--models", str(tmp_path / "models"), "--state", str(tmp_path / "state"), "--device", "cpu"),
    ]


@pytest.mark.parametrize("method", ["kmeans", *gradient_methods()])
def test_more_clusters_than_images_are_refused_in_one_line(method: str, tmp_path: Path, capsys) -> None:
    settings = tiny_config(method, **({} if method == "probe" else {"num_clusters": 49}))
    settings["params"]["num_clusters"] = 49
    settings["id"] = run_id(settings)
    assert train.main(arguments(tmp_path, settings, make_prepared(tmp_path / "data", {"train": 48}))) == 2
    assert "num_clusters is 49, but there are 48 images to train on" in capsys.readouterr().err


def test_one_image_is_not_clustered() -> None:
    params = {"num_clusters": 1, "train_split": "train"}
    with pytest.raises(UserError, match="there is 1 image to train on"):
        require_enough(params, DataInfo(1, 8, {"train": 1}))
    require_enough(params, DataInfo(1, 8, {"train": 2}))


@pytest.mark.parametrize("method", ["kmeans", "drc"])
def test_a_run_leaves_a_record_that_answers_for_every_file(method: str, tmp_path: Path) -> None:
    settings = tiny_config(method)
    assert train.main(arguments(tmp_path, settings, make_prepared(tmp_path / "data"))) == 0
    record = read_json(tmp_path / "out/run.json")
    assert record["data"] == {
        "fingerprint": "tiny",
        "data_id": "tiny",
        "splits": {"train": {"n": 48, "sha256": sha256_file(tmp_path / "data/train.npy")}},
    }
    assert record["host_platform"]
    assert record["environment"]["lock_sha256"] == sha256_file(PACKAGE.parents[1] / "requirements.lock")
    assert len(record["environment"]["installed_sha256"]) == 64
    (attempt,) = record["attempts"]
    assert attempt["commit"] == record["commit"]
    assert attempt["device"] == record["device"]["name"]
    assert record["id"] == settings["id"]
    for name, digest in record["files"].items():
        folder = "models" if name in outputs.MODEL_OUTPUTS else "out"
        assert sha256_file(tmp_path / folder / name) == digest
    observed = set(outputs.OBSERVED) if method == "drc" else set()
    written = {"config.json", "history.csv", "predictions.npz", "weights.safetensors"}
    assert set(record["files"]) == written | observed
    assert f"src/dica/methods/{method}.py" in record["sources"]
    assert "src/dica/train.py" in record["sources"]
    assert "src/dica/runs/record.py" in record["bookkeeping"]
    assert record["trace"] == trace_of(method, "full") is not None
    assert record["sources"]["src/dica/rng.py"] == sha256_file(Path(train.__file__).with_name("rng.py"))
    assert len(record["commit"]) == 40
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert record["device"]["type"] == "cpu"
    assert record["peak_memory_mb"] > 0
    assert record["images_per_second"] > 0
    with np.load(tmp_path / "out/predictions.npz") as stored:
        assert stored["train_assignment"].shape == (48,)
        assert stored["num_clusters"] == settings["params"]["num_clusters"]
        assert (stored["train_confidence"] <= 1).all()


def test_the_same_run_twice_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data")
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        assert train.main(arguments(tmp_path / name, tiny_config("drc", seed=seed), data)) == 0
        digests.append(sha256_file(tmp_path / name / "models/weights.safetensors"))
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def finished(tmp_path: Path) -> list[str]:
    """The command of a run that is finished."""
    command = arguments(tmp_path, tiny_config("drc"), make_prepared(tmp_path / "data"))
    assert train.main(command) == 0
    return command


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_done_and_nothing_is_written(finished: list[str], tmp_path: Path, capsys) -> None:
    before = contents(tmp_path)
    assert train.main(finished) == 0
    assert "done drc" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_record_that_was_taken_away_is_put_back_without_training(finished: list[str], tmp_path: Path) -> None:
    before = contents(tmp_path / "out"), contents(tmp_path / "models")
    (tmp_path / "out/run.json").unlink()
    (tmp_path / "data/train.npy").unlink()
    assert train.main(finished) == 0
    after = contents(tmp_path / "out"), contents(tmp_path / "models")
    assert [{name: content for name, (content, _) in files.items()} for files in after] == [
        {name: content for name, (content, _) in files.items()} for files in before
    ]


@pytest.mark.parametrize("away", ["out", "models"])
def test_a_run_that_was_moved_away_is_trained_again(away: str, finished: list[str], tmp_path: Path, capsys) -> None:
    first = read_json(tmp_path / "out/run.json")
    (tmp_path / away).rename(tmp_path / "old")
    (tmp_path / "out/run.json").unlink(missing_ok=True)
    assert train.main(finished) == 0
    again = read_json(tmp_path / "out/run.json")
    assert again["files"]["weights.safetensors"] == first["files"]["weights.safetensors"]
    assert "epoch 2/2" in capsys.readouterr().err, "trained, not only written"
    assert read_json(tmp_path / "state/run.json") == again


def test_what_is_recorded_is_not_overwritten(finished: list[str], tmp_path: Path, capsys) -> None:
    weights = tmp_path / "models/weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    assert train.main(finished) == 2
    assert f"{weights} is not there; move that folder away" in capsys.readouterr().err
    (tmp_path / "elsewhere").rename(weights)
    (tmp_path / "out/history.csv").write_text("epoch\n")
    assert train.main(finished) == 2
    assert "history.csv is not the file that was recorded" in capsys.readouterr().err
    assert (tmp_path / "out/history.csv").read_text() == "epoch\n"
    write_json(tmp_path / "given.json", tiny_config("drc", seed=1))
    assert train.main(finished) == 2
    assert (
        f"it is of run {tiny_config('drc')['id']}, not of {tiny_config('drc', seed=1)['id']}" in capsys.readouterr().err
    )


def test_data_of_another_fingerprint_are_refused(tmp_path: Path, capsys) -> None:
    settings = {**tiny_config("drc"), "data_id": "another"}
    del settings["id"]
    assert train.main(arguments(tmp_path, settings, make_prepared(tmp_path / "data"))) == 3
    message = capsys.readouterr().err
    assert "planned for another" in message
    assert "another" in read_json(tmp_path / "state/failed.json")["reason"]


def test_one_flipped_bit_in_the_images_is_noticed_before_training(tmp_path: Path, capsys) -> None:
    data = make_prepared(tmp_path / "data")
    content = bytearray((data / "train.npy").read_bytes())
    content[500] ^= 1
    (data / "train.npy").write_bytes(content)
    assert train.main(arguments(tmp_path, tiny_config("drc"), data)) == 3
    assert "train.npy: not the array that was prepared" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:600])])
def test_a_missing_or_short_array_is_one_line(damage, tmp_path: Path, capsys) -> None:
    data = make_prepared(tmp_path / "data")
    damage(data / "train.npy")
    assert train.main(arguments(tmp_path, tiny_config("drc"), data)) == 3
    assert "bytes; prepare data again" in capsys.readouterr().err


def test_a_config_answers_for_its_id(tmp_path: Path) -> None:
    settings, file = tiny_config("drc"), tmp_path / "config.json"
    write_json(file, {**settings, "seed": 7})
    with pytest.raises(UserError, match=f"hashes to [0-9a-f]+, it says {settings['id']}; remove 'id'"):
        train.read_config(str(file))
    write_json(file, {key: settings[key] for key in settings if key not in ("id", "variant", "seed", "params")})
    with pytest.raises(UserError, match=r"config\.json: .* no params, seed$"):
        train.read_config(str(file))
    write_json(file, [])
    with pytest.raises(UserError, match="no method, params"):
        train.read_config(str(file))
    write_json(file, {key: settings[key] for key in settings if key not in ("id", "variant")})
    assert train.read_config(str(file)) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"determinism": "sedded"}, r"determinism: 'sedded' is none of fast, seeded, strict"),
        ({"seed": -1}, r"seed: -1 is no whole number from 0 on"),
        ({"seed": True}, r"seed: True is no whole number"),
        ({"params": {"precision": "bflot16"}}, r"params: .*precision.*'bflot16'.*bfloat16"),
        ({"params": {"precison": "bfloat16"}}, r"params: .*precison"),
        ({"params": {"epochs": "ten"}}, r"params: .*epochs.*'ten'"),
    ],
)
def test_a_new_config_is_checked_as_a_plan_checks_its_own(change: dict, message: str, tmp_path: Path) -> None:
    settings, file = tiny_config("drc"), tmp_path / "config.json"
    new = {key: value for key, value in settings.items() if key != "id"}
    write_json(file, {**new, **change, "params": {**new["params"], **change.get("params", {})}})
    with pytest.raises(UserError, match=rf"config\.json: {message}"):
        train.read_config(str(file))


def test_parameters_that_cannot_be_checked_are_told(tmp_path: Path, capsys) -> None:
    settings, file = tiny_config("drc"), tmp_path / "config.json"
    write_json(file, {**{key: value for key, value in settings.items() if key != "id"}, "method": "own"})
    assert train.read_config(str(file))["method"] == "own"
    assert "its parameters are not checked" in capsys.readouterr().err


def test_the_config_may_come_on_standard_input(monkeypatch) -> None:
    settings = tiny_config("drc")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**settings, "needed_by": ["drc table-1"]})))
    assert train.read_config("-") == settings
    monkeypatch.setattr("sys.stdin", io.StringIO("{"))
    with pytest.raises(UserError, match="standard input: not readable as JSON"):
        train.read_config("-")


def test_the_first_line_says_what_runs_where(tmp_path: Path, capsys) -> None:
    settings = tiny_config("kmeans")
    assert train.main(arguments(tmp_path, settings, make_prepared(tmp_path / "data"))) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"train kmeans (full) on digits, seed 0: run {settings['id']} on cpu, 1 thread(s)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["dica.train.ResidentImages", "dica.train.predict", "dica.methods.kmeans.KMeans.fit"])
def test_a_run_stopped_outside_the_loop_has_not_failed(number: int, place: str, tmp_path: Path, monkeypatch) -> None:
    methods.build("kmeans", {"num_clusters": 2}, DataInfo(1, 8, {}))  # so that its module can be patched
    monkeypatch.setattr(place, lambda *_: os.kill(os.getpid(), number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    before = signal.getsignal(signal.SIGTERM)
    stopped = train.main(arguments(tmp_path, tiny_config("kmeans"), make_prepared(tmp_path / "data")))
    assert stopped == train.INTERRUPTED
    assert not (tmp_path / "state/failed.json").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_weights_that_are_no_numbers_make_no_predictions(tmp_path: Path, capsys, monkeypatch) -> None:
    run = train.Trainer.run

    def run_and_spoil(trainer, *options) -> None:
        run(trainer, *options)
        next(trainer.method.parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(train.Trainer, "run", run_and_spoil)
    assert train.main(arguments(tmp_path, tiny_config("drc"), make_prepared(tmp_path / "data"))) == 2
    assert "predictions are not numbers on split train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_part_of_the_loss_that_starts_late_has_a_column() -> None:
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "pseudo_loss": 1.0}]
    assert record.history_csv(history) == "epoch,loss,pseudo_loss\n1,0.5,\n2,0.25,1\n"


def test_uncommitted_files_of_any_name_are_recorded(tmp_path: Path, monkeypatch) -> None:
    def git(*options: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *options], cwd=tmp_path, check=True)

    monkeypatch.setattr(record, "CHECKOUT", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_bytes(b"x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert record.code_state()["dirty_sha256"] is None
    new = tmp_path / "src/übung 1.py"
    new.write_text("y = 2\n")
    (tmp_path / "src/nowhere").symlink_to("missing")
    assert record.code_state()["dirty_sha256"] == sha256_bytes(f"src/übung 1.py {sha256_file(new)}".encode())
    (tmp_path / "src/a.py").write_bytes(b"x = '\xff'\n")
    assert len(record.code_state()["dirty_sha256"]) == 64


def test_an_epoch_may_be_a_part_of_a_pass(tmp_path: Path) -> None:
    """`epoch_batches`: the first batches of the order that a whole pass would have had, in every pass of the epoch."""
    data = make_prepared(tmp_path / "data")
    whole, part, more = (
        make_trainer(tiny_config("drc", **change), data, tmp_path / name)
        for name, change in (("whole", {}), ("part", {"epoch_batches": 2}), ("more", {"epoch_batches": 9}))
    )
    phase = whole.method.phases(0)[0]
    batches = [[rows.tolist() for rows in trainer._order(phase)] for trainer in (whole, part, more)]
    assert batches[1] == batches[0][:2]
    assert batches[2] == batches[0], "a pass has no more than there are"
    part.run()
    assert [row["step"] for row in part.history] == [4, 8], "two batches for each of two heads, in two epochs"


def test_schedules() -> None:
    steps = {"kind": "steps", "milestones": [2, 4], "factor": 0.1}
    assert [learning_rate(steps, 1.0, 0, epoch, 6) for epoch in (0, 2, 5)] == pytest.approx([1, 0.1, 0.01])
    cosine = {"kind": "cosine", "floor": 0.1}
    assert learning_rate(cosine, 2.0, 0, 0, 10) == 2.0
    assert learning_rate(cosine, 2.0, 0, 10, 10) == pytest.approx(0.2)
    warm = {"kind": "constant", "warmup_steps": 4}
    assert [learning_rate(warm, 1.0, step, 0, 1) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]


def test_splits_that_a_data_set_lacks_are_left_out() -> None:
    assert splits_of("all", DataInfo(1, 8, {"train": 5})) == ("train",)
    assert splits_of("all+unlabeled", DataInfo(3, 96, {"train": 5, "test": 8, "unlabeled": 9})) == (
        "train",
        "unlabeled",
        "test",
    )


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_training_needs_no_workflow_packages_and_starts_without_the_compiler() -> None:
    used = [
        "import torch, dica.train, dica.methods.drc, dica.methods.imc_swav",
        "from dica.engine.optim import uncompiled",
        "weight = torch.ones(1, requires_grad=True)",
        "kinds = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)",
        "optimizers = [uncompiled(kind)([weight]) for kind in kinds]",
        "(2 * weight).backward()",
        "[(one.step(), one.load_state_dict(one.state_dict())) for one in optimizers]",
        "optimizers[0].zero_grad()",
    ]
    found = imported_by("; ".join(used))
    assert not found & {"yaml", "jsonschema", "pandas", "sklearn", "snakemake", "dvc", "matplotlib"}
    assert not found & {"torchvision", "torch._dynamo"}, "each takes longer to import than torch itself"


def test_optimisers_without_guards_step_as_torchs_do() -> None:
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        weights = [torch.linspace(-1, 1, 9, requires_grad=True) for _ in range(2)]
        pair = [make([weight]) for make, weight in zip((kind, uncompiled(kind)), weights, strict=True)]
        for _ in range(3):
            for weight, optimizer in zip(weights, pair, strict=True):
                optimizer.zero_grad(set_to_none=True)
                (weight**3).sum().backward()
                optimizer.step()
        assert torch.equal(*weights), kind
        assert pair[0].state_dict().keys() == pair[1].state_dict().keys()


def test_planning_imports_nothing_heavy() -> None:
    assert not imported_by("import dica.plan.plan") & {"torch", "pandas", "scipy", "sklearn", "matplotlib", "PIL"}


def test_the_image_that_a_run_was_trained_in_is_known_by_its_recipe(monkeypatch, root: Path) -> None:
    monkeypatch.delenv("DICA_IMAGE_RECIPE", raising=False)
    outside = record.environment()
    assert "image_recipe_sha256" not in outside
    monkeypatch.setenv("DICA_IMAGE_RECIPE", str(root / "Dockerfile"))
    assert record.environment() == {**outside, "image_recipe_sha256": sha256_file(root / "Dockerfile")}
