"""Every rule is killed while its job runs, with all of Snakemake; nothing half written stays, and all comes out alike.

Several times each, so only in `make faults`; the test suite has kills of training, of a head and of a whole group.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from dica.files import sha256_file
from project import Project, environment, kill_group

pytestmark = pytest.mark.workflow

SNAKEMAKE = ("snakemake", "--cores", "2", "--quiet", "all", "--rerun-incomplete")
# What is made: the files that are removed before each kill, the command that makes them, and the log of its job.
RULES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("runs/drc/digits/*/*", (*SNAKEMAKE, "--", "all"), "logs/train/drc-*.log"),  # `light` trains nothing
    "evaluate": ("runs/*/*/*/metrics.json", (*SNAKEMAKE, "--", "light"), "logs/evaluate/*.log"),
    "cells": ("tables/cells.csv", (*SNAKEMAKE, "--", "light"), "logs/cells.log"),
    "statistics": ("tables/statistics/*", (*SNAKEMAKE, "--", "light"), "logs/statistics.log"),
    "consistency": ("tables/consistency.csv", (*SNAKEMAKE, "--", "light"), "logs/consistency.log"),
    "claims": ("claims.*", (*SNAKEMAKE, "--", "light"), "logs/claims.log"),
    "summary": ("metrics/*.json", (*SNAKEMAKE, "--", "light"), "logs/summary/*.log"),
    "table": ("tables/dica/*", (*SNAKEMAKE, "--", "light"), "logs/table/*.log"),
    "figure": ("figures/dica/*", (*SNAKEMAKE, "--", "light"), "logs/figure/*.log"),
    "rulegraph": ("report/rules.svg", (*SNAKEMAKE, "--", "light"), "logs/rulegraph.log"),
    "page": ("report/*.html", (*SNAKEMAKE, "--", "light"), "logs/page.log"),
    "deposit": ("../dist/*", (*SNAKEMAKE, "--forcerun", "deposit", "--", "deposit"), "logs/deposit.log"),
    "dvc repro": ("runs/kmeans/digits/*/*", ("dvc", "repro", "runs@kmeans"), "logs/train/kmeans-*.log"),
}
MADE_TWICE_ALIKE = {"deposit"}  # what holds the time of its making is only whole
TIMED = ("run.json",)  # when a run was trained is not the same twice


def digests(project: Project, pattern: str) -> dict[str, str]:
    files = sorted(path for path in (project.folder / "results").glob(pattern) if path.is_file())
    return {path.name if "dist" in pattern else path.as_posix(): sha256_file(path) for path in files}


def kill_while_it_runs(project: Project, rule: str, draw: random.Random) -> bool:
    """Remove what a rule makes, begin to make it and kill all once its job has begun; return whether that was so."""
    pattern, command, log = RULES[rule]
    results = project.folder / "results"
    for path in (*results.glob(pattern), *results.glob(log)):
        path.unlink()
    shutil.rmtree(results / "state", ignore_errors=True)
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(results.glob(log)):
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 2))
    killed = process.poll() is None
    if killed:
        kill_group(process)
    project.run("snakemake", "--unlock")
    return killed


def killed_often(finished: Project, folder: Path, rule: str, kills: int) -> int:
    """Kill a rule so many times, make what it makes at last, and compare; return how many kills met it."""
    project = finished.copy(folder)
    pattern, command, _ = RULES[rule]
    if rule == "deposit":
        project.run(*command)
    before, draw = digests(project, pattern), random.Random(rule)
    assert before, f"{pattern}: nothing to remove"
    met = 0
    for _ in range(kills):
        met += kill_while_it_runs(project, rule, draw)
        after = digests(project, pattern)
        assert set(after) <= set(before), "half-written files lie under other names than those of results"
        wrong = [name for name, digest in after.items() if digest != before[name] and not name.endswith(TIMED)]
        assert not wrong or rule in MADE_TWICE_ALIKE, wrong
    project.run(*command)
    after = digests(project, pattern)
    assert set(after) == set(before)
    alike = {name for name in before if not name.endswith(TIMED) and rule not in MADE_TWICE_ALIKE}
    assert {name: after[name] for name in alike} == {name: before[name] for name in alike}
    return met


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_killed_five_times(rule: str, finished: Project, tmp_path: Path, note_figures) -> None:
    met = killed_often(finished, tmp_path / "project", rule, 5)
    assert met, "no kill met the job"
    note_figures(
        f"kill -9 of everything while `{rule}` runs: whole or not there, and the same at last", "kills", met, met
    )
