"""The event file of a run's history: what others read there, and that the run is the same without it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import validators
from dica import train
from dica.engine.tracker import NAME, EventFile, crc32c
from dica.files import read_csv, read_json, write_json
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from tiny import make_prepared, tiny_config

READ = """
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1])
found.Reload()
for name in sorted(found.Tags()["scalars"]):
    print(name, *[f"{event.step}:{event.value:.6g}" for event in found.Scalars(name)])
"""


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of each field of a protocol buffer."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        size = {1: 8, 5: 4}.get(key & 7) or (varint() if key & 7 == 2 else 0)
        if size:
            yield key >> 3, data[place : place + size]
            place += size
        else:
            yield key >> 3, varint()


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Read an event file as the format's description says, every checksum checked."""
    data, place, found = path.read_bytes(), 0, {}
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        body = data[place + 12 : place + 12 + size]
        for part, told in ((data[place : place + 8], place + 8), (body, place + 12 + size)):
            value = (struct.unpack_from("<I", data, told)[0] - 0xA282EAD8) & 0xFFFFFFFF
            assert crc32c(part) == (value >> 17 | value << 15) & 0xFFFFFFFF
        place += 16 + size
        event = dict(fields(body))
        for _, entry in fields(event.get(5, b"")):
            value = dict(fields(entry))
            found.setdefault(value[1].decode(), []).append((event.get(2, 0), struct.unpack("<f", value[2])[0]))
    return found


@pytest.mark.parametrize("method", ["drc", "autoencoder"])
def test_a_run_tells_its_history_and_is_the_same_run(method: str, tmp_path: Path) -> None:
    write_json(tmp_path / "given.json", tiny_config(method))
    data = make_prepared(tmp_path / "data")
    for out, more in (("with", ("--tracker", str(tmp_path / "events"))), ("without", ())):
        told = ("--config", str(tmp_path / "given.json"), "--data", str(data), "--out", str(tmp_path / out))
        assert train.main([*told, "--device", "cpu", *more]) == 0
    assert read_json(tmp_path / "with/run.json")["files"] == read_json(tmp_path / "without/run.json")["files"]
    rows = read_csv(tmp_path / "with/history.csv")
    found = curves(tmp_path / "events" / NAME)
    assert found.keys() == rows[0].keys() - {"epoch", "step"}
    for name, points in found.items():
        assert [step for step, _ in points] == [int(row["epoch"]) for row in rows]
        assert [value for _, value in points] == pytest.approx([float(row[name]) for row in rows], rel=1e-6)


def test_an_attempt_that_resumes_says_nothing_twice(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "step": 9 * epoch, "loss": 1 / epoch} for epoch in (1, 2, 300)]
    EventFile(tmp_path, rows[:2])
    EventFile(tmp_path, rows[:1]).add(rows[2])
    assert [step for step, _ in curves(tmp_path / NAME)["loss"]] == [1, 300]


def test_the_key_changes_no_plan(root: Path) -> None:
    profile = load_profile(root / "params/demo.yaml", root)
    assert make_plan({**profile, "tracker": "tensorboard"}, root) == make_plan(profile, root)


@pytest.mark.validators
def test_tensorboard_reads_it(tmp_path: Path) -> None:
    EventFile(tmp_path, [{"epoch": 1, "step": 5, "loss": 0.5, "lr": 0.125}, {"epoch": 2, "step": 10, "loss": 0.25}])
    said = validators.run("tensorboard", "python", "-c", READ, tmp_path)
    assert said.splitlines() == ["loss 1:0.5 2:0.25", "lr 1:0.125"]
    validators.note("tensorboard", "history of a run", True)
