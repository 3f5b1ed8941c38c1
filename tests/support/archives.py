"""Tiny archives in exactly the official formats, and projects whose catalogue declares them."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from PIL import Image
from scipy.io import savemat

from dica.data.catalog import CATALOG
from dica.files import sha256_file

SCHEMA = Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "datasets.schema.yaml"


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    """Write regular files, in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the regular files of an open tar; `extractall` takes the filter it asks for from Python 3.11.4 on."""
    for member in filter(tarfile.TarInfo.isreg, tar):
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tar.extractfile(member) as file, open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)


def tar_bytes(members: dict[str, bytes]) -> bytes:
    """Return an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """Write regular files, in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def encode(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def images(number: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (number, height, width, 3) noise: no image equals its own transpose or mirror."""
    return np.random.default_rng(seed).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def cifar10_binary(
    path: Path, train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> Path:
    """Train images are dealt to the five batches in order."""
    members = {
        "cifar-10-batches-bin/readme.html": b"<html>",
        "cifar-10-batches-bin/test_batch.bin": _records(test, test_labels),
    }
    for number, rows in reversed(list(enumerate(np.array_split(np.arange(len(train)), 5), 1))):
        members[f"cifar-10-batches-bin/data_batch_{number}.bin"] = _records(train[rows], labels[rows])
    members["cifar-10-batches-bin/batches.meta.txt"] = "".join(f"class {n}\n" for n in range(10)).encode() + b"\n"
    return write_tar(path, members)


def _records(pixels: np.ndarray, *labels: np.ndarray) -> bytes:
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([*(np.asarray(label, np.uint8)[:, None] for label in labels), planes], axis=1).tobytes()


def cifar100_binary(path: Path, pixels: np.ndarray, coarse: np.ndarray, fine: np.ndarray) -> Path:
    """The same images are train and test."""
    return write_tar(
        path,
        {
            "cifar-100-binary/train.bin": _records(pixels, coarse, fine),
            "cifar-100-binary/test.bin": _records(pixels, coarse, fine),
            "cifar-100-binary/fine_label_names.txt": "".join(f"fine {n}\n" for n in range(100)).encode(),
            "cifar-100-binary/coarse_label_names.txt": "".join(f"coarse {n}\n" for n in range(20)).encode(),
        },
    )


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is what the authors' pickles hold."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: Any) -> bytes:
    """Pickle as Python 2 with the NumPy of its day did, protocol 2."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10_python(
    path: Path, train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> Path:
    """Train images are dealt to the five batches in order."""
    top = "cifar-10-batches-py"
    members = {f"{top}/readme.html": b"<html>", f"{top}/test_batch": _batch(test, labels=test_labels)}
    for number, rows in enumerate(np.array_split(np.arange(len(train)), 5), 1):
        members[f"{top}/data_batch_{number}"] = _batch(train[rows], labels=labels[rows])
    members[f"{top}/batches.meta"] = python2_pickle({b"label_names": [f"class {n}".encode() for n in range(10)]})
    return write_tar(path, members)


def cifar100_python(path: Path, pixels: np.ndarray, coarse: np.ndarray, fine: np.ndarray) -> Path:
    """The same images are train and test."""
    batch = _batch(pixels, coarse_labels=coarse, fine_labels=fine)
    names = {
        f"{kind}_label_names".encode(): [f"{kind} {n}".encode() for n in range(k)]
        for kind, k in (("fine", 100), ("coarse", 20))
    }
    top = "cifar-100-python"
    return write_tar(path, {f"{top}/meta": python2_pickle(names), f"{top}/test": batch, f"{top}/train": batch})


def _batch(pixels: np.ndarray, **labels: np.ndarray) -> bytes:
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1))
    batch = {b"batch_label": b"a batch", b"data": planes, b"filenames": [b"a.png"] * len(pixels)}
    return python2_pickle(batch | {name.encode(): [int(v) for v in values] for name, values in labels.items()})


def stl10(path: Path, pixels: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Path:
    """`pixels` by split, `labels` 0..9 of train and test; on disk labels count from 1 and columns come first."""
    members = {"stl10_binary/fold_indices.txt": b"0 1\n"}
    members |= {f"stl10_binary/{s}_X.bin": p.transpose(0, 3, 2, 1).tobytes() for s, p in pixels.items()}
    members |= {f"stl10_binary/{s}_y.bin": (v + 1).astype(np.uint8).tobytes() for s, v in labels.items()}
    members["stl10_binary/class_names.txt"] = "\n".join(f"class{n}" for n in range(10)).encode()
    return write_tar(path, members)


def ilsvrc(folder: Path, train: dict[str, list[bytes]], val: list[tuple[str, bytes]]) -> dict[str, Path]:
    """Write the three official archives. `train`: JPEGs by wnid; `val`: (wnid, JPEG) in the order of their numbers."""
    wnids = sorted({*train, *(wnid for wnid, _ in val)})
    # ids run against the alphabet, so that a reader that sorts wnids instead of looking ids up is found out
    ids = {wnid: number for number, wnid in enumerate(reversed(wnids), 1)}
    synsets = np.array(
        [(ids[w], w, "words", "gloss", 0) for w in wnids],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    truth = "".join(f"{ids[wnid]}\n" for wnid, _ in val).encode()
    top = "ILSVRC2012_devkit_t12"
    return {
        "train": write_tar(
            folder / "ILSVRC2012_img_train.tar",
            {
                f"{wnid}.tar": tar_bytes(
                    {f"{wnid}_{number}.JPEG": data for number, data in reversed(list(enumerate(files)))}
                )
                for wnid, files in train.items()
            },
            "w",
        ),
        "val": write_tar(
            folder / "ILSVRC2012_img_val.tar",
            {f"ILSVRC2012_val_{number:08d}.JPEG": data for number, (_, data) in reversed(list(enumerate(val, 1)))},
            "w",
        ),
        "devkit": write_tar(
            folder / f"{top}.tar.gz",
            {
                f"{top}/readme.txt": b"",
                f"{top}/data/meta.mat": meta.getvalue(),
                f"{top}/data/ILSVRC2012_validation_ground_truth.txt": truth,
            },
        ),
    }


def tiny_imagenet(path: Path, train: dict[str, list[bytes]], val: list[tuple[str, bytes]]) -> Path:
    """`train`: JPEGs by wnid; `val`: (wnid, JPEG)."""
    top = "tiny-imagenet-200"
    members = {
        f"{top}/wnids.txt": "\n".join(reversed(list(train))).encode() + b"\n",
        f"{top}/words.txt": b"n0\tthing\n",
    }
    members[f"{top}/val/val_annotations.txt"] = "".join(
        f"val_{n}.JPEG\t{w}\t0\t0\t63\t63\n" for n, (w, _) in enumerate(val)
    ).encode()
    members |= {f"{top}/val/images/val_{n}.JPEG": data for n, (_, data) in enumerate(val)}
    for wnid, files in train.items():
        members[f"{top}/train/{wnid}/{wnid}_boxes.txt"] = b""
        members |= {f"{top}/train/{wnid}/images/{wnid}_{n}.JPEG": data for n, data in enumerate(files)}
    members[f"{top}/test/images/test_0.JPEG"] = val[0][1]
    return write_zip(path, members)


def source(path: Path, form: str, **more: Any) -> dict[str, Any]:
    """Declare one archive as a source."""
    return {"format": form, "files": [file_entry(path, **more)]}


def file_entry(path: Path, **more: Any) -> dict[str, Any]:
    """Declare one file with its true digest."""
    return {"file": path.name, "size": path.stat().st_size, "sha256": sha256_file(path), **more}


def entry(kind: str, sources: list[dict[str, Any]], splits: dict[str, int], size: int, **more: Any) -> dict[str, Any]:
    """Return a complete catalogue entry."""
    return {
        "label": "a set",
        "kind": kind,
        "sources": sources,
        "licence": "none",
        "citation": "none",
        "num_classes": 10,
        "image_size": size,
        "channels": 3,
        "splits": splits,
        "prepare": {},
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    } | more


def project(root: Path, **entries: dict[str, Any]) -> Path:
    """Make a project folder with a catalogue of these data sets (`_` in a name stands for `-`)."""
    (root / "params").mkdir(parents=True, exist_ok=True)
    (root / "workflow" / "schemas").mkdir(parents=True, exist_ok=True)
    (root / "Snakefile").touch()
    shutil.copy(SCHEMA, root / "workflow" / "schemas" / SCHEMA.name)
    catalogue = {name.replace("_", "-"): value for name, value in entries.items()}
    (root / "params" / "datasets.yaml").write_text(yaml.safe_dump(catalogue, allow_unicode=True), encoding="utf-8")
    return root


def change(root: Path, **values) -> None:
    """Change keys of `mini` in the catalogue."""
    path = root / CATALOG
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries["mini"].update(values)
    path.write_text(yaml.safe_dump(entries, allow_unicode=True), encoding="utf-8")
