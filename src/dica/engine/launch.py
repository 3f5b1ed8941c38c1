"""How the workflow starts a training run: what it asks of the scheduler, and the command with its speed options."""

from __future__ import annotations

from dica.engine.slots import TWELFTHS, twelfths
from dica.files import UserError


def gpu_request(method: dict, remote: bool) -> dict[str, int]:
    """Return Snakemake's resources `gpu` (whole devices) and `gpu_twelfths` (what is counted on one machine).

    Parameters
    ----------
    method
        The parameter file of the method.
    remote
        Whether jobs go to a cluster, which gives out whole devices only.

    Raises
    ------
    UserError
        If a run asks for several GPUs and for a share of one, or for an impossible share.
    """
    resources = method["resources"]
    count, share = resources["gpu"], resources.get("gpu_share", 1)
    if share > 1 and count != 1:
        raise UserError(f"params/{method['method']}.yaml: resources: gpu_share: {share} needs gpu: 1, not {count}")
    size = twelfths(share)
    if remote or share == 1:
        return {"gpu": count, "gpu_twelfths": TWELFTHS * count}
    return {"gpu": 0, "gpu_twelfths": size}  # less than one device


def command(method: dict, determinism: str) -> str:
    """Return how the training command begins: launcher, device or share of it and, in `fast`, the speed options."""
    resources = method["resources"]
    words = ["python"]
    if resources["gpu"] > 1:
        words.append(f"-m dica.torchrun --standalone --nproc-per-node {resources['gpu']}")
    words.append("-m dica.train")
    if resources["gpu"] == 0:
        words.append("--device cpu")  # it was counted as using none: it must not hold one that others wait for
    if resources.get("gpu_share", 1) > 1:
        words.append(f"--gpu-share {resources['gpu_share']}")
    if determinism == "fast":
        speed = method.get("speed", {})
        words += [f"--{name.replace('_', '-')}" for name in ("compile", "cuda_graph") if speed.get(name)]
    return " ".join(words)
