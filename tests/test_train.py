"""The training command: its record, its refusals, its schedules, and what it must not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dica import train
from dica.files import read_json, sha256_file, write_json
from dica.methods.base import splits_of
from dica.optim import learning_rate
from tiny import make_prepared, tiny_config


def arguments(tmp_path: Path, settings: dict, data: Path) -> list[str]:
    write_json(tmp_path / "given.json", settings)
    return [
        *("--config", str(tmp_path / "given.json"), "--data", str(data), "--out", str(tmp_path / "out")),
        *("--models", str(tmp_path / "models"), "--state", str(tmp_path / "state"), "--device", "cpu"),
    ]


@pytest.mark.parametrize("method", ["kmeans", "drc"])
def test_a_run_leaves_a_record_that_answers_for_every_file(method: str, tmp_path: Path) -> None:
    settings = tiny_config(method)
    assert train.main(arguments(tmp_path, settings, make_prepared(tmp_path / "data"))) == 0
    record = read_json(tmp_path / "out/run.json")
    assert record["id"] == settings["id"]
    for name, digest in record["files"].items():
        folder = "models" if name == "weights.safetensors" else "out"
        assert sha256_file(tmp_path / folder / name) == digest
    assert set(record["files"]) == {"config.json", "history.csv", "predictions.npz", "weights.safetensors"}
    assert f"src/dica/methods/{method}.py" in record["sources"]
    assert "src/dica/train.py" in record["sources"]
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


def test_data_of_another_fingerprint_are_refused(tmp_path: Path, capsys) -> None:
    settings = {**tiny_config("drc"), "data_id": "another"}
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


def test_wrong_usage_is_one_line(tmp_path: Path, capsys) -> None:
    write_json(tmp_path / "plan.json", {"runs": []})
    common = ["--plan", str(tmp_path / "plan.json"), "--data", "d", "--out", str(tmp_path / "out")]
    assert train.main(common) == 2
    assert "--plan needs --run" in capsys.readouterr().err
    assert train.main([*common, "--run", "0" * 12]) == 2
    assert f"no run {'0' * 12}" in capsys.readouterr().err


def test_schedules() -> None:
    steps = {"kind": "steps", "milestones": [2, 4], "factor": 0.1}
    assert [learning_rate(steps, 1.0, 0, epoch, 6) for epoch in (0, 2, 5)] == pytest.approx([1, 0.1, 0.01])
    cosine = {"kind": "cosine", "floor": 0.1}
    assert learning_rate(cosine, 2.0, 0, 0, 10) == 2.0
    assert learning_rate(cosine, 2.0, 0, 10, 10) == pytest.approx(0.2)
    warm = {"kind": "constant", "warmup_steps": 4}
    assert [learning_rate(warm, 1.0, step, 0, 1) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]


def test_splits_that_a_data_set_lacks_are_left_out() -> None:
    from dica.methods.base import DataInfo

    assert splits_of("all", DataInfo(1, 8, {"train": 5})) == ("train",)
    assert splits_of("all+unlabeled", DataInfo(3, 96, {"train": 5, "test": 8, "unlabeled": 9})) == (
        "train",
        "unlabeled",
        "test",
    )


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_training_needs_no_workflow_packages() -> None:
    statement = "import dica.train, dica.methods.drc, dica.methods.imc_swav"
    assert not imported_by(statement) & {"yaml", "jsonschema", "pandas", "sklearn", "snakemake", "dvc", "matplotlib"}


@pytest.mark.parametrize("module", ["artefacts", "audit", "cli", "figures", "layout", "metrics", "report", "tables"])
def test_what_reads_stored_predictions_does_not_import_torch(module: str) -> None:
    assert "torch" not in imported_by(f"import dica.{module}")


def test_planning_imports_nothing_heavy() -> None:
    assert not imported_by("import dica.identity") & {"torch", "pandas", "scipy", "sklearn", "matplotlib", "PIL"}
