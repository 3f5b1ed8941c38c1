"""`dica verify`: a run is trained again and compared with what it left, which may be forged and agree with itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dica import train
from dica.cli import __main__ as cli
from dica.cli import evidence
from dica.files import load_arrays, read_csv, read_json, sha256_file, write_csv, write_json, write_npz
from dica.plan.plan import run_folder
from dica.runs.record import processor_kind
from tiny import make_prepared, tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project with one finished run of two epochs."""
    project = tmp_path_factory.mktemp("verify")
    (project / "params").mkdir()
    (project / "Snakefile").touch()
    settings = tiny_config("drc")
    folder = project / run_folder(settings, "results")
    write_json(project / "given.json", settings)
    data = make_prepared(project / "data/prepared/digits")
    told = ["--models", str(project / "results/models" / folder.relative_to(project / "results/runs"))]
    told += ["--state", str(project / "state"), "--out", str(folder), "--device", "cpu"]
    assert train.main(["--config", str(project / "given.json"), "--data", str(data), *told]) == 0
    return folder


@pytest.fixture
def verify(trained: Path, monkeypatch, capsys):
    """Call the command; training happens in this process. Returns exit code and the findings by name."""
    monkeypatch.chdir(trained.parents[4])
    here = SimpleNamespace(run=lambda command, env: SimpleNamespace(returncode=train.main(command[3:])))
    monkeypatch.setattr(evidence, "subprocess", here)

    def call(*told: str) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["dica", "verify", str(trained), "--json", *told])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        assert captured.out, captured.err
        printed = json.loads(captured.out)
        return end.value.code or 0, {found["what"]: found for found in printed.get("findings", [])} or printed

    return call


def test_a_run_comes_out_again_in_part_and_as_a_whole(verify, trained: Path) -> None:
    code, said = verify("--estimate")
    assert (code, said["seconds"]) == (0, read_json(trained / "run.json")["seconds"])
    code, found = verify("--epochs", "1")
    assert (code, found["history.csv"]["detail"]) == (0, "1 of 2 epochs: the same numbers")
    assert "weights.safetensors" not in found
    code, found = verify()
    assert (code, found["history.csv"]["detail"]) == (0, "2 of 2 epochs: the same numbers")
    assert all(found[name]["ok"] for name in ("predictions.npz", "weights.safetensors", "train_assignment"))
    assert not list((trained.parents[3] / "state").glob("verify-*")), "nothing is left behind"


def forge(trained: Path, name: str) -> None:
    """Change a file of the run and the digest in its record, as a forger would."""
    path = trained / name
    if name == "history.csv":
        rows = read_csv(path)
        rows[1]["loss"] = f"{0.98 * float(rows[1]['loss']):.9g}"
        write_csv(rows, list(rows[0]), path)
    else:
        arrays = load_arrays(path)
        write_npz(path, {**arrays, "train_assignment": np.roll(np.sort(arrays["train_assignment"]), 3)})
    record = read_json(trained / "run.json")
    write_json(trained / "run.json", {**record, "files": {**record["files"], name: sha256_file(path)}})


def test_one_forged_image_is_noticed_where_training_comes_out_the_same(verify, trained: Path) -> None:
    before = {path: path.read_bytes() for path in (trained / "predictions.npz", trained / "run.json")}
    arrays = load_arrays(trained / "predictions.npz")
    arrays["train_assignment"][0] = (arrays["train_assignment"][0] + 1) % 3
    write_npz(trained / "predictions.npz", arrays)
    record = read_json(trained / "run.json")
    record["files"]["predictions.npz"] = sha256_file(trained / "predictions.npz")
    write_json(trained / "run.json", record)
    code, found = verify()
    said = "97.92 % of the images are in the same clusters though training came out the same"
    assert (code, found["train_assignment"]["detail"]) == (3, said)
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize(("name", "said"), [("history.csv", "epoch 2: loss"), ("predictions.npz", "same clusters")])
def test_a_forgery_that_agrees_with_itself_is_noticed(verify, trained: Path, name: str, said: str) -> None:
    before = {path: path.read_bytes() for path in (trained / name, trained / "run.json")}
    forge(trained, name)
    code, found = verify()
    assert code == 3
    (wrong,) = (finding for finding in found.values() if finding["ok"] is False)
    assert said in wrong["detail"]
    for path, content in before.items():
        path.write_bytes(content)


def test_another_kind_of_processor_is_told_though_its_name_is_the_same(verify, trained: Path) -> None:
    before = (trained / "run.json").read_bytes()
    record = read_json(trained / "run.json")
    assert record["device"]["processor_kind"] == processor_kind()
    write_json(trained / "run.json", {**record, "device": {**record["device"], "processor_kind": "family 1, avx512f"}})
    code, found = verify("--epochs", "1")
    assert (code, found["machine"]["ok"]) == (0, None)
    assert found["machine"]["detail"] == f"processor family 1, avx512f then, {processor_kind()} now"
    (trained / "run.json").write_bytes(before)


def test_a_config_that_is_not_the_run_s_is_refused_before_training(trained: Path, monkeypatch, capsys) -> None:
    config = read_json(trained / "config.json")
    write_json(trained / "config.json", {**config, "seed": 7})
    monkeypatch.setattr(sys, "argv", ["dica", "verify", str(trained)])
    monkeypatch.chdir(trained.parents[4])
    with pytest.raises(SystemExit) as end:
        cli.main()
    write_json(trained / "config.json", config)
    assert end.value.code == 2
    assert "its content hashes to" in capsys.readouterr().err.replace("\n", " ")
