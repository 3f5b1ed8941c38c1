"""The run record: what an auditor needs to know about how a result came to be (``run.json``)."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import resource
import subprocess
import sys
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from dica.files import sha256_bytes, sha256_file
from dica.runs.behaviour import decides
from dica.runs.files import PACKAGE

CHECKOUT = PACKAGE.parents[1]
VECTORS = ("avx512f", "avx2", "sve", "asimd", "sse4_2")  # vector units of processors, the widest first
COLLAPSED = 0.95  # share of the images in one cluster from which a run counts as collapsed
LOCK = "requirements.lock"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors")


def code_state() -> dict:
    """Return what code runs: ``commit``, ``dirty_sha256`` (hash of uncommitted changes, None without), ``sources``
    (files that decide the number) and ``bookkeeping`` (files that write it down).

    Outside a Git checkout the first two are None.
    """
    commit = _git("rev-parse", "HEAD").strip()
    watched = ("src", "params", "workflow", "Snakefile", LOCK)
    changes = _git("diff", "HEAD", "--", *watched)
    untracked = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *watched).split("\0")
    # Not every name is a file to hash: a folder with a repository of its own, a dangling link.
    names = [name for name in untracked if (CHECKOUT / name).is_file()]
    text = "\n".join(filter(None, [changes, *(f"{name} {sha256_file(CHECKOUT / name)}" for name in names)]))
    found = source_digests()
    return {
        "commit": commit or None,
        "dirty_sha256": sha256_bytes(os.fsencode(text)) if text else None,
        "sources": {name: digest for name, digest in found.items() if decides(name)},
        "bookkeeping": {name: digest for name, digest in found.items() if not decides(name)},
    }


def _git(*arguments: str) -> str:
    """Return what Git prints, bytes that are not UTF-8 escaped as in file names; empty where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return os.fsdecode(done.stdout)


def attempt(started: datetime, code: dict, device_type: str) -> dict[str, str | None]:
    """Return what is kept of one attempt at a run: when, with what code, where."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "commit": code["commit"],
        "dirty_sha256": code["dirty_sha256"],
        "device": str(device_facts(device_type)["name"]),
        "processor_kind": processor_kind(),
        "torch": metadata.version("torch"),
    }


def code_changes(before: dict, now: dict) -> list[str]:
    """Return which of commit, uncommitted changes, torch and processor differ between two attempts, as text."""
    keys = ("commit", "dirty_sha256", "torch")
    found = [f"{key} {str(before[key])[:12]} -> {str(now[key])[:12]}" for key in keys if before[key] != now[key]]
    kinds = [attempt.get("processor_kind", "not recorded") for attempt in (before, now)]
    return found + [f"processor {kinds[0]} -> {kinds[1]}"] * (kinds[0] != kinds[1])


def collapse_note(headline: dict) -> str:
    """Return that a scored run collapsed if (nearly) all of its images are in one cluster, else nothing.

    Parameters
    ----------
    headline
        The block of that name in ``metrics.json``.
    """
    share = headline.get("largest_cluster_share", 0.0)  # where it is lacking, status and audit say so
    if share < COLLAPSED:
        return ""
    images = "all images" if share == 1 else f"{math.floor(1000 * share) / 10} % of the images"
    return f"collapsed: {images} in 1 of {headline.get('num_clusters', '?')} clusters"


def history_csv(history: list[dict[str, float]]) -> str:
    """Return the loss history as CSV text, one row an epoch; a value that an epoch does not have is left empty."""
    buffer = io.StringIO()
    columns = list(dict.fromkeys(name for row in history for name in row)) or ["epoch"]
    writer = csv.DictWriter(buffer, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()})
    return buffer.getvalue()


def source_digests() -> dict[str, str]:
    """Return ``{path from the project root: sha256}`` of every file of this package that the process imported."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files.add(str(PACKAGE / "train.py"))  # imported as __main__
    paths = sorted(Path(name).resolve() for name in files if name and Path(name).resolve().is_relative_to(PACKAGE))
    return {f"src/dica/{path.relative_to(PACKAGE).as_posix()}": sha256_file(path) for path in paths}


def versions(device_type: str) -> dict[str, str]:
    """Return the versions of what can change a number: Python, packages, on a GPU also CUDA, cuDNN and driver."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, **_cuda_versions()} if device_type == "cuda" else found


def environment() -> dict[str, str]:
    """Return the SHA-256 of the lock file, and that of the versions of all that is installed, one line a package.

    Inside the image of the Dockerfile the SHA-256 of that recipe, too.
    """
    files = {"lock_sha256": CHECKOUT / LOCK, "image_recipe_sha256": Path(os.environ.get("DICA_IMAGE_RECIPE", ""))}
    found = {key: sha256_file(path) for key, path in files.items() if path.is_file()}
    names = {(part.name.lower(), part.version) for part in metadata.distributions() if part.name}
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(names) if name != "dica")
    return {**found, "installed_sha256": sha256_bytes(lines.encode())}


def _cuda_versions() -> dict[str, str]:
    import torch

    driver = Path("/sys/module/nvidia/version")
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    found["driver"] = driver.read_text().strip() if driver.is_file() else None
    return {name: str(version) for name, version in found.items() if version}


def device_facts(device_type: str) -> dict[str, str | int]:
    """Return type, name and thread count of the device in use, of a CPU also `processor_kind`."""
    import torch

    if device_type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(), "threads": torch.get_num_threads()}
    facts = {"type": "cpu", "name": processor_name(), "processor_kind": processor_kind()}
    return {**facts, "threads": torch.get_num_threads()}


def processor_name() -> str:
    """Return the processor's name as it calls itself."""
    return _cpu_facts().get("model name") or platform.processor() or platform.machine()


def processor_kind() -> str:
    """Return make and widest vectors of the processor, as `AuthenticAMD family 25 model 1, avx2`.

    The name may be that of a whole line (`AMD EPYC`); libraries choose kernels, so the order of sums, by what is here.
    """
    facts = _cpu_facts()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    maker = facts.get("vendor_id", platform.machine())
    parts = [f"{name} {facts[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    widest = next((name for name in VECTORS if name in flags), "")
    return " ".join([maker, *parts]) + (f", {widest}" if widest else "")


@cache
def _cpu_facts() -> dict[str, str]:
    """Return what Linux says of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def peak_memory_mb(device_type: str) -> int:
    """Return the most memory the run has held: on the GPU, or of this process on a CPU."""
    if device_type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
