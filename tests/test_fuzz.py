"""Spoilt parameter files: always one clear line, never a traceback, a hang or a swollen process.

The long version, with many more inputs, is `make faults`.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fuzz import TEXTS, fuzz, make_project, parameter_files


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("fuzz") / "project")


def test_hopeless_texts_are_refused_in_one_line_with_little_memory(project: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(project, "params/drc.yaml", list(TEXTS), 0, seed=0)["refused"] == len(TEXTS)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 * 1024, "an alias bomb of 400 bytes stands for gigabytes"


@pytest.mark.parametrize("name", parameter_files())
def test_spoilt_values_and_keys_are_refused_in_one_line(name: str, project: Path) -> None:
    texts = ["empty", "a list", "not UTF-8", "alias bomb", "deep lists", "huge number", "alias of itself"]
    counts = fuzz(project, name, texts, 8, seed=0)
    assert counts["refused"] > counts["tried"] / 3
