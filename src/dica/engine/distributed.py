"""One run on several devices: ``python -m dica.torchrun --nproc-per-node N -m dica.train …``.

Every process holds the whole run and does all of each step, with the same random numbers, but for the residual
networks, which take nearly all of the time: of those it computes its part of the rows, and the outputs of all parts are
put together again. Losses, heads, queues and banks see the joint batch as if there were one process; batch norms inside
the networks take their statistics over all parts. So N processes compute what one does, up to the order of sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_reduce

from dica.files import UserError
from dica.methods.base import Method
from dica.networks.backbones import RESIDUAL


def processes() -> int:
    """Return how many processes share this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process is the one that reads standard input and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def group(timeout_s: float = 1800.0) -> Iterator[None]:
    """Join the processes that torchrun started; does nothing for one that was started alone or has joined."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    yield
    dist.destroy_process_group()  # not after an error: the others may be waiting in a step


def from_first(value: Any) -> Any:
    """Return what the first process has for `value`."""
    if processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def any_of(flag: bool) -> bool:
    """Return whether `flag` is true in any process."""
    if processes() == 1:
        return flag
    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags)
    return bool(flags)


def share_out(method: Method) -> None:
    """Let each process compute its part of the rows that go through the residual networks of `method`.

    Raises
    ------
    UserError
        If the method has none.
    """
    if processes() == 1:
        return
    networks = [part for part in method.networks() if isinstance(part, RESIDUAL)]
    if not networks:
        raise UserError(f"{type(method).__name__}: nothing to share out among {processes()} processes; use one GPU")
    for network in networks:
        _synchronise_norms(network)
        network.register_forward_pre_hook(_own_rows)
        network.register_forward_hook(_all_rows)


def sum_gradients(method: Method) -> None:
    """Make the gradients those of the joint batch, and exactly the same in all processes."""
    if processes() == 1:
        return
    shared = {id(p) for network in method.networks() for p in network.parameters()}
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    # Of a shared network each process has the part of its rows; of all else it has the whole, but perhaps with other
    # last bits, so that the mean keeps the processes from drifting apart.
    scale = [1.0 if id(p) in shared else 1 / processes() for p in method.parameters() if p.grad is not None]
    flat = torch.cat([grad.flatten() * factor for grad, factor in zip(gradients, scale, strict=True)])
    dist.all_reduce(flat)
    for grad, joint in zip(gradients, flat.split([grad.numel() for grad in gradients]), strict=True):
        grad.copy_(joint.view(grad.shape))


def _parts(count: int) -> list[int]:
    size, rest = divmod(count, processes())
    return [size + (rank < rest) for rank in range(processes())]


def _own_rows(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (images,) = inputs
    if not network.training:
        return inputs
    if len(images) < processes():
        raise UserError(
            f"a batch of {len(images)} images cannot be shared out among {processes()} processes; set drop_last: true"
        )
    network.joint_rows = len(images)
    return (images.split(_parts(len(images)))[dist.get_rank()],)


def _all_rows(network: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return _Gather.apply(output, _parts(network.joint_rows)) if network.training else output


class _Gather(torch.autograd.Function):
    """Put the rows of all processes together; back go the gradients of the own rows.

    Every process computes the same loss from the joint rows, so its gradient of its own rows is already whole.
    """

    @staticmethod
    def forward(context, rows: Tensor, parts: list[int]) -> Tensor:
        context.parts = parts
        padded = rows.new_zeros(max(parts), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, parts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.split(context.parts)[dist.get_rank()], None


def _synchronise_norms(network: nn.Module) -> None:
    """Replace the batch norms of `network` in place; names, weights and statistics stay."""
    on_gpu = next(network.parameters()).is_cuda
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                joint = nn.SyncBatchNorm.convert_sync_batchnorm(child) if on_gpu else HostSyncBatchNorm.like(child)
                setattr(module, name, joint)


class HostSyncBatchNorm(nn.BatchNorm2d):
    """`torch.nn.SyncBatchNorm` for CPUs, which that one refuses."""

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> HostSyncBatchNorm:
        """Return the same batch norm over the rows of all processes, with the same tensors."""
        joint = cls(norm.num_features, norm.eps, norm.momentum)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(joint, name, getattr(norm, name))
        return joint.train(norm.training)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (n, c, h, w) by mean and variance over the rows of all processes."""
        if not self.training:
            return super().forward(images)
        values = images.float() if images.dtype in (torch.bfloat16, torch.float16) else images
        count = all_reduce(values.new_tensor([values.numel() / self.num_features]))
        mean = all_reduce(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)
