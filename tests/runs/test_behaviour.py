"""Whether today's code behaves as the code of a stored run did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dica.files import sha256_bytes
from dica.runs import behaviour as code
from dica.runs.behaviour import OTHER, REWRITTEN, SAME, UNKNOWN, behaviour, decides, unlike_seeds

LOSS, OF = "src/dica/losses/drc.py", "0123456789ab"


def digest(name: str) -> str | None:
    return sha256_bytes(name.encode()) if name == LOSS else None


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch) -> None:
    """Today: two variants with a golden trace. Earlier: one commit that had the trace of `full`."""
    monkeypatch.setattr(code, "TRACES", tmp_path)
    today = {"full": {"of": OF, "digest": "aa"}, "flat": {"of": "ba9876543210", "digest": "bb"}}
    (tmp_path / "drc.json").write_text(json.dumps(today))
    earlier = {"c" * 40: {"drc": ["aa", "cc"]}}
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    monkeypatch.setattr(code, "EARLIER", tmp_path / "earlier.json")
    code.traces.cache_clear()
    code._earlier.cache_clear()
    yield
    code.traces.cache_clear()
    code._earlier.cache_clear()


def record(text: str = "other", **more: object) -> dict:
    sources = {LOSS: digest(LOSS) if text == "same" else text, "src/dica/runs/record.py": text}
    return {"sources": sources, "commit": "c" * 40, "dirty_sha256": None, **more}


TRACE = {"of": OF, "digest": "aa"}
CASES = [
    (record("same"), SAME, "the 1 source files"),
    (record(trace=TRACE), REWRITTEN, "the golden trace of drc (full) is the same"),
    (record(trace={**TRACE, "of": "moved"}), REWRITTEN, "is the same"),
    (record(trace={**TRACE, "digest": "dd"}), OTHER, "is another one"),
    (record(trace={"of": "moved", "digest": "dd"}), UNKNOWN, "with other parameters"),
    (record(trace="aa"), UNKNOWN, "names no golden trace"),
    (record(trace=None), REWRITTEN, "commit ccccccc had the golden trace"),
    (record(trace=None, commit="d" * 40), UNKNOWN, "not known whether commit ddddddd"),
    (record(trace=TRACE, dirty_sha256="e" * 64), UNKNOWN, "uncommitted changes"),
    (record(), REWRITTEN, "commit ccccccc had the golden trace"),
    (record(commit="d" * 40), UNKNOWN, "not known whether commit ddddddd"),
    (record(commit=None), UNKNOWN, "not known"),
]


@pytest.mark.parametrize(("found", "answer", "why"), CASES)
def test_answers(found: dict, answer: str, why: str) -> None:
    result = behaviour("drc", "full", found, digest)
    assert (result.answer, result.stale, why in result.detail) == (answer, answer == OTHER, True), result
    assert (LOSS in result.detail) == (answer != SAME)
    assert "record.py" not in result.detail  # it writes the number down


def test_without_a_golden_trace_the_text_alone_tells() -> None:
    assert behaviour("kmeans", "full", record("same"), digest).answer == SAME
    assert "kmeans has no golden trace" in behaviour("kmeans", "full", record(), digest).detail


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("src/dica/losses/drc.py", True),
        ("src/dica/engine/loop.py", True),
        ("src/dica/data/prepared.py", True),
        ("src/dica/rng.py", True),
        ("src/dica/train.py", True),
        ("src/dica/backbones.py", True),  # a module that has been moved since
        ("src/dica/runs/record.py", False),
        ("src/dica/engine/slots.py", False),
        ("src/dica/files.py", False),
        ("src/dica/runid.py", False),
    ],
)
def test_code_that_decides_is_told_from_code_that_writes_down(name: str, expected: bool) -> None:
    assert decides(name) is expected


def test_seeds_of_one_number() -> None:
    alike = {0: record("one", trace=TRACE), 1: record("two"), 2: record("three", trace=TRACE)}
    assert unlike_seeds("drc", "full", alike) == ""
    other = {**alike, 2: record("three", trace={**TRACE, "digest": "dd"})}
    assert unlike_seeds("drc", "full", other) == "trained by code that behaves differently: seeds 0, 1 against seed 2"
    unknown = {0: record("one", commit="d" * 40), 1: record("one", commit="e" * 40), 2: record("two", commit="d" * 40)}
    said = unlike_seeds("drc", "full", unknown)
    assert said == "trained by code that is not known to behave alike: seeds 0, 1 against seed 2"


def test_the_archive_keeps_the_traces_of_the_commits_that_its_older_records_name() -> None:
    code._earlier.cache_clear()
    code.traces.cache_clear()
    root = Path(__file__).parents[2]
    stored = json.loads((root / "src/dica/runs/earlier_traces.json").read_text())
    for path in (root / "results/runs").glob("*/*/*/run.json"):
        found = json.loads(path.read_text())
        if found.get("trace") is None and found["dirty_sha256"] is None:
            assert found["method"] in stored[found["commit"]], path
