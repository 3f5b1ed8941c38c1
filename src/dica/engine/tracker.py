"""The history of a run while it trains, as an event file that TensorBoard and others read; off by default.

The profile's key `tracker` asks for it; what is trained does not depend on it, nor does a run's id. The format is two
public ones inside each other: TFRecord (length, checksum, data, checksum) around `Event` of TensorBoard's protocol
buffers, so that no package of a tracker is needed to write it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from pathlib import Path

NAME = "events.out.tfevents.dica"
AXES = ("epoch", "step")  # of a row; all else is a curve


def crc32c(data: bytes) -> int:
    """Return the checksum CRC-32C (Castagnoli).

    Examples
    --------
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _record(data: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        value = crc32c(part)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _text(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _event(step: int, rest: bytes) -> bytes:
    return _record(b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + rest)


class EventFile:
    """Rows of a history, each epoch a step. An attempt that resumes writes the file anew, then adds to it."""

    def __init__(self, folder: Path, rows: Iterable[dict[str, float]] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.path.write_bytes(_event(0, _text(3, b"brain.Event:2")))
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Append one row."""
        curves = ((name.encode(), struct.pack("<f", row[name])) for name in row if name not in AXES)
        values = b"".join(_text(1, _text(1, name) + b"\x15" + value) for name, value in curves)
        with open(self.path, "ab") as file:
            file.write(_event(int(row["epoch"]), _text(5, values)))
