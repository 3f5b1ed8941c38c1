"""A trained run on other images, and its network outside of this package."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from dica import train
from dica.cli.apply import find_run
from dica.cli.own import run_door
from dica.data.images import Recipe, decode
from dica.data.prepared import open_split
from dica.files import UserError, load_arrays, read_json
from dica.own import apply
from dica.plan.parameters import load_datasets
from pictures import ROOT, copy_params, picture_folder, planned_run, train_arguments

NETWORK = Path("network.safetensors")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with a folder of pictures and two trained runs on them."""
    root = copy_params(tmp_path_factory.mktemp("apply") / "project")
    picture_folder(root / "pics")
    for method in ("kmeans", "imc-swav"):
        (run,) = planned_run(root, root / "pics", method)
        assert train.main(train_arguments(root, run)) == 0
    yield root
    load_datasets.cache_clear()


@pytest.fixture(params=["imc-swav", "kmeans"])
def run(project: Path, request, monkeypatch) -> apply.Applied:
    load_datasets.cache_clear()
    monkeypatch.chdir(project)
    return applied(project, request.param)


def applied(project: Path, method: str) -> apply.Applied:
    (folder,) = (project / "results/own/pics/runs" / method / "own-pics").glob("s0-*")
    return apply.Applied(*find_run(project, str(folder)), project)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_on_its_own_images_gives_the_run_s_own_predictions(run: apply.Applied, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    arguments = ["--run", str(run.folder), "--models", str(run.models), "--images", "pics", "--out", str(out)]
    assert apply.main(["predict", *arguments]) == 0
    stored, found = load_arrays(run.folder / "predictions.npz"), rows(out)
    assert [row["file"] for row in found] == sorted(path.name for path in Path("pics").iterdir())
    assert [int(row["cluster"]) for row in found] == stored["train_assignment"].tolist()
    assert [row["confidence"] for row in found] == [f"{value:.4f}" for value in stored["train_confidence"]]
    assert all(row["second_cluster"] != row["cluster"] for row in found)


def test_new_images_of_another_size_and_kind(run: apply.Applied, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    shutil.copytree("pics", folder / "inside")
    for path in (folder / "inside").iterdir():
        with Image.open(path) as image:
            image.convert("RGBA").resize((24, 24), Image.Resampling.NEAREST).save(path)
    names, images = run.read(folder)
    assert images.shape == (48, 8, 8, 3)
    assert names[0] == "inside/000_0.png"
    one = run.read(folder / "inside/000_0.png")
    np.testing.assert_array_equal(one[1][0], images[0])
    original = run.probabilities(np.array(open_split("data/prepared/own-pics", "train")))
    agree = run.probabilities(images).argmax(axis=1) == original.argmax(axis=1)
    assert agree.mean() > 0.7, "a quarter by chance; resizing changes some pixels"


def test_a_damaged_new_image_is_named(run: apply.Applied, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        run.read(tmp_path)


def test_what_is_left_out_passed_over_or_linked(run: apply.Applied, tmp_path: Path) -> None:
    shutil.copytree("pics", tmp_path / "elsewhere")
    new = tmp_path / "new"
    new.mkdir()
    (new / "more").symlink_to(tmp_path / "elsewhere")
    (new / "bad.png").write_bytes(b"no image")
    (new / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"--follow-links"):
        run.read(new)
    with pytest.raises(UserError, match=r"(?s)1 unreadable images; .*--skip-unreadable.*bad\.png"):
        run.read(new, follow=True)
    run.remarks.clear()
    names, images = run.read(new, skip=True, follow=True)
    assert (len(names), names[0], len(images)) == (48, "more/000_0.png", 48)
    np.testing.assert_array_equal(images, run.read(Path("pics"))[1])
    assert [word in remark for remark, word in zip(run.remarks, ("1 .heic", "bad.png"), strict=True)] == [True, True]
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match=r"no image can be read, 'bad\.png' the first"):
        run.read(new, skip=True, follow=True)


def test_where_only_numbers_were_compared_a_number_is_asked_for(project: Path) -> None:
    (project / "results/own/several").mkdir(parents=True)
    (project / "results/own/several/how-many.json").write_text("{}")
    with pytest.raises(UserError, match=r"only numbers of clusters were compared; .*`dica cluster … .*--k N`"):
        find_run(project, "several")


def refused(project: Path, *arguments: str) -> str:
    """Call the door in a process of its own where torch cannot be imported; returns its error."""
    program = f"import sys; sys.modules['torch'] = None\nfrom dica.own.apply import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=project, text=True, capture_output=True)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_what_is_refused_is_refused_before_torch_is_loaded(project: Path, tmp_path: Path) -> None:
    run = applied(project, "imc-swav")
    given = ["--run", str(run.folder), "--models", str(run.models)]
    made = [tmp_path / name for name in ("empty", "text", "bad", "mixed")]
    for folder in made:
        folder.mkdir()
    for path in (made[1] / "a.txt", made[2] / "a.png", made[3] / "a.png", tmp_path / "plain"):
        path.write_text("x")
    shutil.copy(project / "pics/000_0.png", made[3])
    predict = ["predict", *given, "--out", str(tmp_path / "x.csv"), "--images"]
    for images, expected in [
        (tmp_path / "none", "no such folder or archive"),
        (made[0], "no image found"),
        (made[1], "no image found"),
        (made[2], "1 unreadable images"),
        (made[3], "1 unreadable images"),
        (tmp_path / "plain", "neither a folder nor an archive"),
    ]:
        assert expected in refused(project, *predict, str(images))
    assert "no image can be read" in refused(project, *predict, str(made[2]), "--skip-unreadable")
    for out, expected in [(tmp_path, "is a folder"), (tmp_path / "plain/x.csv", "nothing can be written in")]:
        assert expected in refused(project, "predict", *given, "--images", "pics", "--out", str(out))
    (tmp_path / "models.pt2").mkdir()
    for name, expected in [("m.foo", "allowed: "), ("m", "allowed: "), ("models.pt2", "is a folder")]:
        assert expected in refused(project, "export", *given, "--out", str(tmp_path / name))
    assert "nothing can be written in" in refused(project, "export", *given, "--out", str(tmp_path / "plain/m.pt2"))
    given = ["--run", str(run.folder), "--models", str(tmp_path), "--out"]
    for told in (["predict", *given, "x.csv", "--images", "pics"], ["export", *given, "m.pt2"]):
        assert "weights.safetensors: no such file" in refused(project, *told)
    assert not (tmp_path / "x.csv").exists()


def test_weights_that_changed_are_refused(project: Path, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(project)
    run = applied(project, "kmeans")
    models = Path(shutil.copytree(run.models, tmp_path / "models"))
    content = bytearray((models / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (models / "weights.safetensors").write_bytes(content)
    arguments = ["--run", str(run.folder), "--models", str(models), "--images", "pics", "--out", str(tmp_path / "x")]
    assert apply.main(["predict", *arguments]) == 3
    assert "changed" in capsys.readouterr().err


@pytest.mark.parametrize("side", [8, 12])
def test_a_run_on_images_that_were_replaced_is_refused(side: int, tmp_path: Path, monkeypatch) -> None:
    root = copy_params(tmp_path / "project")
    monkeypatch.chdir(root)
    picture_folder(root / "pics")
    (run,) = planned_run(root, root / "pics", "kmeans")
    assert train.main(train_arguments(root, run)) == 0
    shutil.rmtree(root / "pics")
    picture_folder(root / "pics", count=40, side=side)
    planned_run(root, root / "pics", "kmeans")
    earlier = apply.Applied(*find_run(root, str(root / run["path"])), root)
    for use in (lambda: apply.predict(earlier, root / "pics", root / "x.csv"), lambda: apply.export(earlier, NETWORK)):
        with pytest.raises(UserError, match=r"was trained on images .*, own-pics has .* now.*`dica cluster`"):
            use()
    load_datasets.cache_clear()
    assert not (root / "x.csv").exists()
    assert not NETWORK.exists()


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("error: 2 unreadable images:\n  a.png (x)\n  b.png (y)", "2 unreadable images:\n  a.png (x)\n  b.png (y)"),
        ("a warning\nerror: one\n", "one"),
        ("Traceback\n  File\nKeyError: 1", "KeyError: 1"),
        ("", "exit code 1"),
    ],
)
def test_all_of_an_error_is_passed_on(printed: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        run_door(tmp_path, ["-c", f"import sys; sys.stderr.write({printed!r}); sys.exit(1)"])
    assert str(raised.value) == told


def test_what_is_no_run_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match="no run there"):
        find_run(project, "results/own/other")


def example(kind: str) -> str:
    """The program of docs/own-images.md that loads a network of this kind."""
    found = documented(f"model{kind}")
    assert len(found.splitlines()) <= 12
    return documented("def prepared") + found


def documented(part: str) -> str:
    """The code of docs/own-images.md that has this part."""
    text = (ROOT / "docs/own-images.md").read_text(encoding="utf-8")
    (found,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if part in code)
    return found


@pytest.mark.parametrize("size", [(8, 8), (40, 30), (33, 57), (9, 100), (5, 3), (101, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA", "LA", "P", "CMYK", "1", "turned"])
def test_the_documented_preparation_is_that_of_this_package(size: tuple, mode: str, tmp_path: Path) -> None:
    draw, exif = np.random.default_rng(0), Image.Exif()
    if mode == "I;16":
        image = Image.fromarray(draw.integers(0, 2**16, size[::-1], dtype=np.uint16))
    else:
        image = Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        image = image.convert("RGB" if mode == "turned" else mode)
    exif[0x0112] = 6 if mode == "turned" else 1
    path = tmp_path / "a.tif"
    image.save(path, exif=exif)
    names: dict = {}
    exec(documented("def prepared"), names)
    wanted = decode(path.read_bytes(), Recipe(8, "crop", upright=True))
    np.testing.assert_array_equal(names["prepared"](path, 8), wanted)


def test_the_documented_modes_are_those_that_are_taken() -> None:
    text = " ".join((ROOT / "docs/own-images.md").read_text(encoding="utf-8").split())
    taken, refused = (re.search(rf"{told} are [^(]*\(modes ([^)]*)", text)[1] for told in ("Taken", "Not taken"))
    taken, refused = (set(re.findall(r"`([^`]+)`", modes)) for modes in (taken, refused))
    assert refused == {"I", "F"}
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"):
        file = io.BytesIO()
        Image.new(mode, (9, 8)).save(file, "TIFF")
        if mode in taken:
            assert decode(file.getvalue(), Recipe(8, "crop", upright=True)).shape == (8, 8, 3)
        else:
            assert mode in refused, mode
            with pytest.raises(ValueError, match=f"pixels of type {mode} are not supported"):
                decode(file.getvalue(), Recipe(8, "crop", upright=True))


@pytest.mark.parametrize("kind", [".pt2", ".onnx"])
def test_the_documented_example_predicts_the_same_without_this_package(
    kind: str, project: Path, monkeypatch, tmp_path: Path
) -> None:
    if kind == ".onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    monkeypatch.chdir(project)
    load_datasets.cache_clear()
    run = applied(project, "imc-swav")
    apply.export(run, tmp_path / f"model{kind}")
    shutil.copytree("pics", tmp_path / "photos")
    program = f"import sys; sys.modules['dica'] = None\n{example(kind)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    printed = [line.split() for line in done.stdout.splitlines()]
    stored = load_arrays(run.folder / "predictions.npz")["train_assignment"]
    assert [int(cluster) for _, cluster in printed] == stored.tolist()


def test_safetensors_hold_weights_config_and_preprocessing(run: apply.Applied, tmp_path: Path) -> None:
    apply.export(run, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        state = run.method.state_dict()
        assert set(file.keys()) == set(state)
        assert all(torch.equal(file.get_tensor(name), value) for name, value in state.items())
    assert json.loads(metadata["config"])["id"] == run.config["id"]
    facts = read_json(tmp_path / "model.json")
    assert json.loads(metadata["preprocessing"]) == facts
    assert facts["input"]["shape"] == ["n", 3, 8, 8]
    assert any("shorter side to 8" in line for line in facts["before"])


def test_a_format_that_is_not_known_and_packages_that_are_missing(
    run: apply.Applied, tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(UserError, match=r"allowed: \.safetensors, \.pt2, \.onnx"):
        apply.export(run, tmp_path / "model.bin")
    monkeypatch.setattr(apply.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxscript: pip install 'dica\[onnx\]'"):
        apply.export(run, tmp_path / "model.onnx")
