"""Every reader on tiny archives in the official formats."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import archives
from archives import encode, entry, images, project, source, unpack
from dica.data import cifar, layout
from dica.data.archives import archive_members
from dica.data.images import Recipe, decode
from dica.data.prepare import prepare
from dica.data.prepared import open_split
from dica.files import UserError

RAW = Path("data/raw")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project folder with blanks and non-ASCII letters in its path."""
    return tmp_path / "Größe 图 a b"


def arrays(root: Path, name: str, split: str) -> np.ndarray:
    return np.asarray(open_split(root / "data" / "prepared" / name, split))


def labels(root: Path, name: str, split: str) -> np.ndarray:
    with np.load(root / "data" / "labels" / f"{name}.npz") as stored:
        parts = [stored[part] for part in (("train", "test") if split == "all" else (split,)) if part in stored.files]
    return np.concatenate(parts)


# --- CIFAR


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar10_keeps_orientation_order_and_labels(home, form):
    train, test = images(12, 32, 32), images(4, 32, 32, seed=1)
    y, y_test = np.arange(12) % 10, np.array([9, 0, 3, 3])
    write = archives.cifar10_binary if form == "binary" else archives.cifar10_python
    path = write(home / RAW / f"cifar-10-{form}.tar.gz", train, y, test, y_test)
    one = entry("cifar", [source(path, form)], {"train": 12, "test": 4}, 32, prepare={"labels": "label"})
    manifest = prepare("mini", project(home, mini=one))
    assert np.array_equal(arrays(home, "mini", "train"), train)
    assert np.array_equal(arrays(home, "mini", "test"), test)
    assert labels(home, "mini", "all").tolist() == [*y, *y_test]
    assert manifest["classes"] == [f"class {number}" for number in range(10)]


def test_cifar_binary_and_python_archives_give_one_fingerprint(home):
    data = images(5, 32, 32), np.arange(5), images(2, 32, 32, seed=1), np.arange(2)
    binary = source(archives.cifar10_binary(home / RAW / "b.tar.gz", *data), "binary")
    python = source(archives.cifar10_python(home / RAW / "p.tar.gz", *data), "python")
    sets = {
        name: entry("cifar", [one], {"train": 5, "test": 2}, 32, prepare={"labels": "label"})
        for name, one in (("b", binary), ("p", python))
    }
    root = project(home, **sets)
    assert prepare("b", root)["fingerprint"] == prepare("p", root)["fingerprint"]


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_cifar100_has_fine_and_coarse_labels(home, form, kind):
    fine = np.arange(100)[::7]
    coarse = cifar.COARSE_OF_FINE[fine]
    write = archives.cifar100_binary if form == "binary" else archives.cifar100_python
    path = write(home / RAW / "c.tar.gz", images(len(fine), 32, 32), coarse, fine)
    one = entry(
        "cifar",
        [source(path, form)],
        {"train": len(fine), "test": len(fine)},
        32,
        prepare={"labels": kind},
        num_classes=100 if kind == "fine" else 20,
    )
    prepare("mini", project(home, mini=one))
    assert labels(home, "mini", "test").tolist() == (fine if kind == "fine" else coarse).tolist()


def test_cifar100_hierarchy_is_balanced_and_a_contradiction_refused(tmp_path):
    assert np.bincount(cifar.COARSE_OF_FINE).tolist() == [5] * 20
    path = archives.cifar100_binary(tmp_path / "c.tar.gz", images(2, 32, 32), np.array([4, 2]), np.array([0, 1]))
    with pytest.raises(UserError, match="coarse and fine"):
        cifar.read({"prepare": {"labels": "fine"}}, "binary", {"file": path})


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/owned'",)

    path = archives.cifar10_python(
        tmp_path / "p.tar.gz", images(5, 32, 32), np.arange(5), images(1, 32, 32), np.arange(1)
    )
    members = {m.name: m.read() for m in archive_members(path)}
    members["cifar-10-batches-py/data_batch_1"] = archives.python2_pickle({b"data": Hostile(), b"labels": []})
    with pytest.raises(UserError, match="system is not allowed"):
        cifar.read(
            {"prepare": {"labels": "label"}}, "python", {"f": archives.write_tar(tmp_path / "h.tar.gz", members)}
        )
    assert not (tmp_path / "owned").exists()


def test_cifar_archive_of_the_wrong_kind_or_length_is_refused(tmp_path):
    wrong = archives.write_tar(tmp_path / "w.tar.gz", {"cifar-10-batches-bin/data_batch_1.bin": b"123"})
    with pytest.raises(UserError, match="is missing"):
        cifar.read({"prepare": {"labels": "label"}}, "binary", {"f": wrong})
    with pytest.raises(UserError, match="not a multiple of 3073"):
        cifar._binary(b"123", "label", "x")


# --- STL-10


def stl_entry(home: Path, **splits: int) -> tuple[dict, dict[str, np.ndarray], dict[str, np.ndarray]]:
    pixels = {split: images(n, 96, 96, seed) for seed, (split, n) in enumerate(splits.items())}
    truth = {split: np.arange(n) % 10 for split, n in splits.items() if split != "unlabeled"}
    path = archives.stl10(home / RAW / "stl10_binary.tar.gz", pixels, truth)
    return entry("stl10", [source(path, "binary")], splits, 96), pixels, truth


def test_stl10_is_turned_upright_and_labels_count_from_zero(home):
    one, pixels, truth = stl_entry(home, train=11, test=3, unlabeled=4)
    manifest = prepare("stl", project(home, stl=one))
    for split, expected in pixels.items():
        assert np.array_equal(arrays(home, "stl", split), expected)
    assert labels(home, "stl", "all").tolist() == [*truth["train"], *truth["test"]]
    assert sorted(manifest["splits"]) == ["test", "train", "unlabeled"]
    with np.load(home / "data/labels/stl.npz") as held:
        assert sorted(held.files) == ["test", "train"]


def test_stl10_with_other_counts_is_refused(home):
    one, _, _ = stl_entry(home, train=4, test=3, unlabeled=2)
    one["splits"]["unlabeled"] = 3
    with pytest.raises(UserError, match=r"unlabeled_X\.bin.*3 images"):
        prepare("stl", project(home, stl=one))


# --- ImageNet


WNIDS = ["n02000003", "n02000001"]  # the order of the list is the label, not the alphabet


def jpeg(seed: int, height: int = 40, width: int = 56) -> bytes:
    return encode(images(1, height, width, seed)[0], "JPEG", quality=95)


@pytest.fixture
def ilsvrc(home: Path) -> dict[str, Path]:
    train = {
        wnid: [jpeg(10 * k + n) for n in range(3)] for k, wnid in enumerate(["n02000001", "n02000002", "n02000003"])
    }
    val = [("n02000003", jpeg(90)), ("n02000002", jpeg(91)), ("n02000001", jpeg(92)), ("n02000003", jpeg(93))]
    return archives.ilsvrc(home / RAW, train, val)


def imagenet_entry(sources: list[dict], home: Path) -> dict:
    (home / "params").mkdir(parents=True, exist_ok=True)
    (home / "params/list.txt").write_text("\n".join(WNIDS) + "\n")
    return entry(
        "imagenet",
        sources,
        {"train": 6, "test": 3},
        32,
        num_classes=2,
        class_list="params/list.txt",
        prepare={"size": 32, "mode": "crop"},
    )


def tar_source(ilsvrc: dict[str, Path]) -> dict:
    return {"format": "tar", "files": [archives.file_entry(path, role=role) for role, path in ilsvrc.items()]}


def test_imagenet_subset_from_the_official_archives(home, ilsvrc):
    manifest = prepare("in", project(home, **{"in": imagenet_entry([tar_source(ilsvrc)], home)}))
    assert labels(home, "in", "train").tolist() == [0, 0, 0, 1, 1, 1]
    assert labels(home, "in", "test").tolist() == [0, 0, 1]
    expected = [decode(jpeg(seed), Recipe(32, "crop")) for seed in (20, 21, 22, 0, 1, 2)]
    assert np.array_equal(arrays(home, "in", "train"), expected)
    assert np.array_equal(arrays(home, "in", "test"), [decode(jpeg(s), Recipe(32, "crop")) for s in (90, 93, 92)])
    assert manifest["classes"] == WNIDS


@pytest.mark.parametrize("layout", ["class folders", "flat, kit archive", "flat, kit folder"])
def test_imagenet_from_a_folder_equals_the_archives(home, ilsvrc, monkeypatch, layout):
    copy = home / "ILSVRC 2012"
    extract_ilsvrc(ilsvrc, copy, layout)
    sources = [{"format": "folder", "env": "DICA_IMAGENET"}, tar_source(ilsvrc)]
    root = project(home, **{"in": imagenet_entry(sources, home)})
    from_tar = prepare("in", root)
    monkeypatch.setenv("DICA_IMAGENET", str(copy))
    from_folder = prepare("in", root)
    assert from_folder["fingerprint"] == from_tar["fingerprint"]
    assert from_folder["sources"][0]["sha256"] is None


def extract_ilsvrc(ilsvrc: dict[str, Path], copy: Path, layout: str) -> None:
    import tarfile

    for wnid in (*WNIDS, "n02000002"):
        with tarfile.open(ilsvrc["train"]) as outer, tarfile.open(fileobj=outer.extractfile(f"{wnid}.tar")) as inner:
            unpack(inner, copy / "train" / wnid)
    with tarfile.open(ilsvrc["val"]) as tar:
        unpack(tar, copy / "val")
    if layout == "flat, kit archive":
        shutil.copy(ilsvrc["devkit"], copy)
    elif layout == "flat, kit folder":
        with tarfile.open(ilsvrc["devkit"]) as tar:
            unpack(tar, copy)
    else:
        for number, wnid in enumerate(["n02000003", "n02000002", "n02000001", "n02000003"], 1):
            (copy / "val" / wnid).mkdir(exist_ok=True)
            name = f"ILSVRC2012_val_{number:08d}.JPEG"
            (copy / "val" / name).rename(copy / "val" / wnid / name)


def test_imagenet_without_one_of_the_classes_says_which(home, ilsvrc):
    one = imagenet_entry([tar_source(ilsvrc)], home)
    (home / "params/list.txt").write_text("n02000003\nn09999999\n")
    with pytest.raises(UserError, match="n09999999 is missing"):
        prepare("in", project(home, **{"in": one}))


# --- Tiny-ImageNet


def test_tiny_imagenet(home):
    train = {wnid: [jpeg(10 * k + n, 64, 64) for n in range(2)] for k, wnid in enumerate(["n00000001", "n00000002"])}
    val = [("n00000002", jpeg(50, 64, 64)), ("n00000001", jpeg(51, 64, 64)), ("n00000002", jpeg(52, 64, 64))]
    path = archives.tiny_imagenet(home / RAW / "tiny-imagenet-200.zip", train, val)
    one = entry("tiny-imagenet", [source(path, "zip")], {"train": 4, "test": 3}, 64, num_classes=2)
    prepare("tiny", project(home, tiny=one))
    assert labels(home, "tiny", "train").tolist() == [0, 0, 1, 1]
    assert labels(home, "tiny", "test").tolist() == [0, 1, 1]
    assert np.array_equal(arrays(home, "tiny", "test"), [decode(jpeg(s, 64, 64), Recipe()) for s in (51, 50, 52)])


# --- folders of images


def folder_entry(path: Path, splits: dict[str, int], size: int = 6, **more) -> dict:
    given = {"format": "folder", "folder": str(path)} if path.is_dir() else source(path, "archive")
    return entry("folder", [given], splits, size, num_classes=2, **more)


def files_of(names: list[str]) -> dict[str, bytes]:
    return {name: encode(images(1, 6, 6, seed)[0]) for seed, name in enumerate(names)}


def write_files(top: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


NAMES = ["train/b ö/2.png", "train/a/9.PNG", "train/b ö/10.png", "test/b ö/1.png", "test/a/deeper/x.png"]


def test_folder_tar_and_zip_of_the_same_images_are_the_same_data_set(home):
    files = files_of(NAMES) | {"train/a/._9.png": b"junk", "train/a/notes.txt": b"junk", "__MACOSX/a.png": b"junk"}
    wrapped = {f"./my photos/{name}": data for name, data in reversed(files.items())}
    raw = home / RAW
    splits = {"train": 3, "test": 2}
    root = project(
        home,
        plain=folder_entry(write_files(home / "bilder ü", files), splits),
        gz=folder_entry(archives.write_tar(raw / "x.tar.gz", wrapped), splits),
        xz=folder_entry(archives.write_tar(raw / "x.tar.xz", wrapped, "w:xz"), splits),
        zip=folder_entry(archives.write_zip(raw / "x.zip", files), splits),
    )
    manifests = [prepare(name, root) for name in ("plain", "gz", "xz", "zip")]
    assert len({manifest["fingerprint"] for manifest in manifests}) == 1
    assert manifests[0]["classes"] == ["a", "b ö"]
    assert labels(home, "plain", "all").tolist() == [0, 1, 1, 0, 1]
    order = [files[name] for name in ("train/a/9.PNG", "train/b ö/10.png", "train/b ö/2.png")]
    assert np.array_equal(arrays(home, "plain", "train"), [decode(data, Recipe()) for data in order])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b/1.png", "a/2.png"], {("train", "a", "a/2.png"), ("train", "b", "b/1.png")}),
        (["2.png", "1.png"], {("train", None, "1.png"), ("train", None, "2.png")}),
        (["top/2.png"], {("train", "top", "top/2.png")}),
        (["top/c/2.png"], {("train", "c", "top/c/2.png")}),
        (["train/1.png"], {("train", None, "train/1.png")}),
        (
            ["x/train/c/1.png", "x/unlabeled/c/2.png"],
            {("train", "c", "x/train/c/1.png"), ("unlabeled", None, "x/unlabeled/c/2.png")},
        ),
    ],
)
def test_layouts_of_folders(names, expected):
    assert set(map(tuple, layout.arrange(names, "x"))) == expected


@pytest.mark.parametrize(
    ("names", "message"), [([], "no image"), (["a.png", "c/b.png"], "inside class folders and outside")]
)
def test_layouts_that_mean_nothing_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        layout.arrange(names, "x")


def test_a_flat_folder_has_no_labels(home):
    one = folder_entry(
        write_files(home / "flat", files_of(["2.png", "1.png"])), {"train": 2}, prepare={"labels": "none"}
    )
    manifest = prepare("flat", project(home, flat=one))
    assert labels(home, "flat", "all").tolist() == [-1, -1]
    assert manifest["classes"] == []
    assert manifest["data_id"] is None


def test_corrupt_images_are_listed_together_with_their_number(home):
    files = files_of([f"a/{number:02d}.png" for number in range(30)])
    for number in range(3, 28):
        files[f"a/{number:02d}.png"] = files[f"a/{number:02d}.png"][:40]
    files["b/1.png"] = encode(images(1, 6, 6)[0])
    one = folder_entry(write_files(home / "bad", files), {"train": 31})
    root = project(home, bad=one)
    with pytest.raises(UserError, match="25 unreadable images") as error:
        prepare("bad", root)
    listed = [line.split()[0] for line in str(error.value).splitlines()[1:]]
    assert listed == [f"a/{number:02d}.png" for number in range(3, 23)] + ["..."]
    assert not list((root / "data/prepared/bad").glob("*.npy*"))


def test_images_of_several_sizes_need_prepare_size(home):
    files = files_of(["a/1.png"]) | {"b/2.png": encode(images(1, 9, 14)[0])}
    path = write_files(home / "mixed", files)
    root = project(home, mixed=folder_entry(path, {"train": 2}))
    with pytest.raises(UserError, match=r"b/2.png' is 14x9.*prepare.size: 6"):
        prepare("mixed", root)
    root = project(home, mixed=folder_entry(path, {"train": 2}, prepare={"size": 6, "mode": "stretch"}))
    assert prepare("mixed", root)["splits"]["train"]["shape"] == [2, 6, 6, 3]


def test_grey_palette_alpha_and_16_bit_become_rgb():
    from PIL import Image

    rgb = images(1, 5, 7)[0]
    grey = rgb[..., 0]
    assert np.array_equal(decode(encode(grey), Recipe()), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode(encode(np.dstack([rgb, grey])), Recipe()), rgb)
    assert np.array_equal(
        decode(encode(grey.astype(np.uint16) * 256 + 7), Recipe()), np.repeat(grey[..., None], 3, axis=2)
    )
    buffer = archives.io.BytesIO()
    Image.fromarray(rgb).quantize(16).save(buffer, "PNG")
    assert decode(buffer.getvalue(), Recipe()).shape == (5, 7, 3)


def test_exif_orientation_counts_for_users_photos_only():
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = encode(images(1, 8, 16)[0], "JPEG", exif=exif)
    assert decode(data, Recipe()).shape == (8, 16, 3)
    assert decode(data, Recipe(upright=True)).shape == (16, 8, 3)


def test_crop_takes_the_centre_and_stretch_takes_all():
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    assert (decode(encode(pixels), Recipe(8, "crop")) == 255).all()
    assert 0 < decode(encode(pixels), Recipe(8, "stretch")).mean() < 255


def test_an_image_that_claims_to_be_enormous_is_refused(monkeypatch):
    monkeypatch.setattr("dica.data.images.PIXEL_LIMIT", 10)
    with pytest.raises(ValueError, match="too many"):
        decode(encode(images(1, 5, 7)[0]), Recipe())


# --- digits


def test_digits_are_the_declared_ones(root, home):
    shutil.copytree(root / "params", home / "params")
    shutil.copytree(root / "workflow/schemas", home / "workflow/schemas")
    manifest = prepare("digits", home)  # raises if the fingerprint is not the declared one
    pixels = arrays(home, "digits", "train")
    assert pixels.shape == (1797, 8, 8, 1)
    assert pixels.dtype == np.uint8
    assert set(np.unique(pixels)) <= {round(value * 255 / 16) for value in range(17)}
    assert labels(home, "digits", "all")[:10].tolist() == list(range(10))
    assert manifest["channels"] == 1
