"""CIFAR-10 and CIFAR-100 from the authors' archives: the binary version, or the pickled one read without trust.

Both hold 32x32 images as 3,072 bytes, channel by channel, row by row. A CIFAR-10 record has one label byte before the
pixels; a CIFAR-100 record has two, coarse then fine. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dica.data.archives import tar_members
from dica.data.decoded import Content, whole
from dica.files import UserError

PIXELS = 3 * 32 * 32
LIMIT = 200 * 2**20  # bytes of one member; the largest (CIFAR-100 train) has 154 MB

# Files of each split, in order, and the class names; keyed by (format, is it CIFAR-100?).
LAYOUT: dict[tuple[str, bool], dict[str, Any]] = {
    ("binary", False): {
        "train": [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["cifar-10-batches-bin/test_batch.bin"],
        "label": "cifar-10-batches-bin/batches.meta.txt",
    },
    ("binary", True): {
        "train": ["cifar-100-binary/train.bin"],
        "test": ["cifar-100-binary/test.bin"],
        "fine": "cifar-100-binary/fine_label_names.txt",
        "coarse": "cifar-100-binary/coarse_label_names.txt",
    },
    ("python", False): {
        "train": [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)],
        "test": ["cifar-10-batches-py/test_batch"],
        "label": "cifar-10-batches-py/batches.meta",
    },
    ("python", True): {
        "train": ["cifar-100-python/train"],
        "test": ["cifar-100-python/test"],
        "fine": "cifar-100-python/meta",
        "coarse": "cifar-100-python/meta",
    },
}

# Coarse class of each fine class, as the CIFAR-100 files themselves have it: a check, never the source of a label.
COARSE_OF_FINE = np.array(
    [
        [4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11],
        [6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5],
        [5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17],
        [10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13],
        [16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13],
    ]
).ravel()


class RestrictedUnpickler(pickle.Unpickler):
    """Loads dictionaries of plain values and NumPy arrays; any other global of a pickle is refused."""

    ALLOWED: ClassVar[set[tuple[str, str]]] = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        # NumPy 2 renamed numpy.core; the old name would warn.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read a CIFAR archive whose digest has been verified.

    Parameters
    ----------
    entry
        The data set's entry; `prepare.labels` is `label` (CIFAR-10), `fine` or `coarse` (CIFAR-100).
    form
        `binary` or `python`.
    files
        The one archive.

    Raises
    ------
    UserError
        If a file is missing, of a wrong length, or holds labels that cannot be.
    """
    kind = entry["prepare"]["labels"]
    layout = LAYOUT[form, kind != "label"]
    (path,) = files.values()
    held = _load(path, {*layout["train"], *layout["test"], layout[kind]})
    parse = _binary if form == "binary" else _pickled
    images, labels = {}, {}
    for split in ("train", "test"):
        parts = [parse(held[name], kind, f"{path.name}: {name}") for name in layout[split]]
        images[split] = np.concatenate([part[0] for part in parts])
        labels[split] = np.concatenate([part[1] for part in parts])
    classes = _class_names(held[layout[kind]], form, kind, path.name)
    for split, values in labels.items():
        if values.size and not 0 <= values.min() <= values.max() < len(classes):
            raise UserError(f"{path.name}: a label of {split} is outside 0..{len(classes) - 1}")
    return Content(
        classes=classes,
        shape=(32, 32, 3),
        counts={split: len(values) for split, values in labels.items()},
        blocks=(whole(split, pixels) for split, pixels in images.items()),
        labels=labels,
    )


def _load(path: Path, wanted: set[str]) -> dict[str, bytes]:
    held = {m.name: m.read(LIMIT) for m in tar_members(path, path.name) if m.name in wanted}
    if missing := sorted(wanted - held.keys()):
        raise UserError(f"{path.name}: {missing[0]!r} is missing; this is not the CIFAR archive that was declared")
    return held


def _binary(data: bytes, kind: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    header = 1 if kind == "label" else 2
    if len(data) % (header + PIXELS):
        raise UserError(f"{where} has {len(data)} bytes, not a multiple of {header + PIXELS}")
    records = np.frombuffer(data, np.uint8).reshape(-1, header + PIXELS)
    if kind != "label":
        _check_hierarchy(records[:, 1], records[:, 0], where)
    labels = records[:, 1 if kind == "fine" else 0].astype(np.int16)
    return _upright(records[:, header:]), labels


def _pickled(data: bytes, kind: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(data, where)
    keys = {"label": b"labels", "fine": b"fine_labels", "coarse": b"coarse_labels"}
    try:
        pixels = np.asarray(batch[b"data"])
        labels = np.asarray(batch[keys[kind]], dtype=np.int16)
        if kind != "label":
            _check_hierarchy(np.asarray(batch[b"fine_labels"]), np.asarray(batch[b"coarse_labels"]), where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is not a CIFAR batch ({error!r})") from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise UserError(f"{where} holds {pixels.dtype} {pixels.shape}, expected uint8 ({len(labels)}, {PIXELS})")
    return _upright(pixels), labels


def _unpickle(data: bytes, where: str) -> dict[bytes, Any]:
    try:
        value = RestrictedUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a hostile or damaged pickle can raise anything
        raise UserError(f"{where} is not a plain pickle of arrays ({error}); refused") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a CIFAR batch (a {type(value).__name__})")
    return value


def _upright(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _check_hierarchy(fine: np.ndarray, coarse: np.ndarray, where: str) -> None:
    if fine.size and (fine.max() >= 100 or not np.array_equal(COARSE_OF_FINE[fine], coarse)):
        raise UserError(f"{where}: coarse and fine labels do not belong together")


def _class_names(data: bytes, form: str, kind: str, archive: str) -> list[str]:
    if form == "binary":
        return [line.strip() for line in data.decode("utf-8").splitlines() if line.strip()]
    key = {"label": b"label_names", "fine": b"fine_label_names", "coarse": b"coarse_label_names"}[kind]
    names = _unpickle(data, archive).get(key)
    if not isinstance(names, list):
        raise UserError(f"{archive}: no class names under {key!r}")
    return [bytes(name).decode("utf-8") for name in names]
