"""How much arithmetic a run is: counted without doing it, on tensors that have shapes and no content (`meta`).

Counted are products and convolutions, a multiplication and its addition as two operations: of networks, heads,
discriminators and views, forward and backward, in one full batch of each phase of an epoch. Beside the epochs stands
what a run does once: features of its source, the fit of a method without gradient steps, predictions. Left out are
sums and normalisations, optimisers, renewed batch statistics and searches for neighbours, which are no products or are
small. K-means counts as if every start took all the iterations that it may take: there the count is an upper bound.

How many kernels a device has to start is counted too (`launches`): steps of small networks take the time of that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dica import methods
from dica.data.splits import DataInfo, splits_of
from dica.data.whole import MODE, stored_shape
from dica.engine.loop import SaveEvery, Trainer
from dica.engine.observer import IMAGES, LOOKS
from dica.methods.ac import AC
from dica.methods.base import Batch, FitMethod, Method
from dica.methods.fitted import FittedMethod
from dica.methods.kmeans import KMeans
from dica.methods.labelled import LabelledImages
from dica.methods.nmf import NMF
from dica.methods.sc import SC

META = torch.device("meta")
PART = 1000  # images of a sample, from which the count of all follows
# Operations that give another name to the same memory launch nothing.
VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select", "slice"),
    *("detach", "alias", "unbind", "split", "split_with_sizes", "as_strided", "diagonal", "lift_fresh"),
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"),
}
NORMS = {"native_batch_norm": 0, "native_batch_norm_backward": 1}  # which argument is normalised
ASKED = {torch.Tensor.__int__: int, torch.Tensor.item: int, torch.Tensor.__bool__: bool}


@dataclass(frozen=True)
class Count:
    """The arithmetic of a run, in operations.

    Attributes
    ----------
    once : beside the epochs
    epoch : of an epoch
    launches : kernels that an epoch starts
    """

    once: float
    epoch: float
    launches: float


class Operations(TorchDispatchMode):
    """Counts what is dispatched in its block: operations of products and convolutions, and kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.launches = 0.0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        packet = operation.overloadpacket
        like = NORMS.get(packet.__name__)
        result = operation(*args, **(kwargs or {})) if like is None else _norm_like(args[like])
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        self.launches += packet.__name__ not in VIEWS
        return result


def _norm_like(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a batch norm of `x` gives, or its backward: torch takes 4 ms to find these shapes."""
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


class _Generator(torch.Generator):
    """Stands in for a generator of random numbers on a device that has none."""

    device = META

    def __new__(cls, device: torch.device | str = META) -> _Generator:
        return super().__new__(cls)


class _Contentless(TorchFunctionMode):
    """Draws without generators, and answers whoever asks for a value: what the tensor has as `answer`, else 0."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.tolist:
            return np.zeros(args[0].shape).tolist()
        if function in ASKED:
            return ASKED[function](getattr(args[0], "answer", 0))
        given = {name: value for name, value in (kwargs or {}).items() if name != "generator"}
        return function(*args, **given)


class _Images:
    """As many images as a data set has, without content; the part of `ResidentImages` that a trainer asks for."""

    place = "device"

    def __init__(self, info: DataInfo) -> None:
        self.info, self.device, self.index_device = info, META, META
        self.splits = {name: range(count) for name, count in info.counts.items()}

    def some(self, count: int) -> Tensor:
        """Return (count, C, H, W) uint8, stored channels last."""
        height, width = stored_shape(self.info.image_size, MODE if self.info.whole else None)
        return torch.empty(count, height, width, self.info.channels, dtype=torch.uint8, device=META).permute(0, 3, 1, 2)

    def take(self, splits: tuple[str, ...], indices: Tensor) -> Tensor:
        return self.some(len(indices))

    def total(self, names: tuple[str, ...]) -> int:
        return sum(self.info.counts[name] for name in names)


class Counter:
    """Counts one run.

    Parameters
    ----------
    config
        Of the run, as ``config.json`` has it.
    info
        Sizes of its data set.
    source
        Config of the run that it builds on, if there is one.
    """

    def __init__(self, config: dict, info: DataInfo, source: dict | None = None) -> None:
        self.config, self.params, self.source = config, config["params"], source
        self.info = info
        self.once = self.epoch = self.launches = 0.0

    def count(self) -> Count:
        """Return what the run is."""
        with self.pretending(), META:
            self.build()
            self.work()
        return Count(self.once, self.epoch, self.launches)

    @contextlib.contextmanager
    def pretending(self) -> Iterator[None]:
        """Make tensors without content usable: no draws, no autocast, no search for labelled images, no K-means."""
        with (
            mock.patch.object(torch, "Generator", _Generator),
            mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()),
            mock.patch.object(KMeans, "fit_points", lambda clusters, points, seed: self._add_kmeans(clusters)),
            mock.patch.object(LabelledImages, "choose", return_value=None),
            _Contentless(),
        ):
            yield

    def build(self) -> None:
        """Make the method, and let it adopt its source."""
        self.images = _Images(self.info)
        self.method = methods.build(self.config["method"], self.params, self.info)
        self._adopt()

    def work(self) -> None:
        """Do once what a run does again and again, or fit, and predict."""
        if isinstance(self.method, FitMethod):
            self._fit(self.method)
        else:
            self._train()
        self._predict()

    @property
    def _trained(self) -> tuple[str, ...]:
        return splits_of(self.params["train_split"], self.info)

    def _adopt(self) -> None:
        """Let the method adopt a sample of the images, and count that as all; give it the labels that it asks for."""
        if self.source:
            below = methods.build(self.source["method"], self.source["params"], self.info).eval().requires_grad_(False)
            with self._sampled(self._trained) as sample:
                self.method.adopt(below, sample)
        if self.method.supervised:
            self.method.give_labels(torch.zeros(self.info.counts["train"], dtype=torch.long))

    @contextlib.contextmanager
    def _sampled(self, names: tuple[str, ...], times: float = 1.0) -> Iterator[dict[str, Tensor]]:
        """Yield a sample of the images; what the block does with it is counted as if with all of the splits `names`."""
        sample = {name: self.images.some(min(PART, count)) for name, count in self.info.counts.items()}
        with torch.no_grad(), Operations() as operations:
            yield sample
        self.once += times * operations.flops * self.images.total(names) / sum(len(sample[name]) for name in names)

    def _fit(self, method: FitMethod) -> None:
        """Count a fit by what it is known to multiply."""
        total = self.images.total(self._trained)
        if isinstance(method, AC | SC):
            self.once += 2.0 * total**2 * method.inputs.width  # distances of all from all: which ones are near?
        if isinstance(method, SC):
            self.once += kmeans_flops(total, self.params["num_clusters"], self.params)
        if isinstance(method, NMF):
            rank = self.params["components"] * self.params["num_clusters"]
            self.once += 4.0 * total * method.inputs.width * rank * self.params["iterations"]
            self.once += kmeans_flops(total, rank, self.params)
        self._cluster(method)

    def _cluster(self, method: Method) -> None:
        """Count K-means on the features of all training images, or on their pixels, of a method that does so."""
        clusters = getattr(method, "clusters", method)
        if not isinstance(clusters, KMeans):
            return
        if clusters.of_source is None:
            self._add_kmeans(clusters)
        else:
            with self._sampled(self._trained) as sample:
                clusters.fit(sample, 0)

    def _add_kmeans(self, clusters: KMeans) -> list[dict[str, float]]:
        total = self.images.total(splits_of(clusters.params["train_split"], self.info))
        self.once += kmeans_flops(total, clusters.centroids.shape[1], clusters.params)
        return []

    def _train(self) -> None:
        """Count one full batch of every phase, times the batches of an epoch, and what comes before an epoch."""
        method, size = self.method.train(), self.params["batch_size"]
        trainer = Trainer(self.config, method, self.images, None, SaveEvery(seconds=0))  # type: ignore[arg-type]
        trainer.optimizer.step = lambda: None  # type: ignore[method-assign]  # it has no products
        step, done = trainer._step, set[str]()
        for phase in method.phases(0):
            total = self.images.total(phase.splits)
            if phase.name in done and isinstance(seen := getattr(method, "seen", None), Tensor):
                seen.answer = total  # type: ignore[attr-defined]  # two passes of one name: the first one is over
            done.add(phase.name)
            trainer._step, repeated = _once_a_kind(step)  # type: ignore[assignment, method-assign]
            trainer._on_host = [np.zeros(min(size, total), np.int64)]
            with Operations() as operations:
                trainer._run_batch(phase, torch.zeros(min(size, total), dtype=torch.long, device=META))
            batches = total // size if self.params["drop_last"] and total > size else max(1.0, total / size)
            batches = min(batches, self.params.get("epoch_batches", batches))
            self.epoch += batches * (operations.flops + repeated.flops)
            self.launches += batches * (operations.launches + repeated.launches)

    def _predict(self) -> None:
        """Count the prediction of every labelled image, those of the looks during training, and the looks before."""
        method = self.method.eval()
        if isinstance(method, FittedMethod):
            return  # what was fitted is known
        if not isinstance(method, FitMethod):
            self._cluster(method)
        labelled = tuple(name for name in self.info.counts if name != "unlabeled")
        total = self.images.total(labelled)
        looks = LOOKS * min(IMAGES, total) if method.watched and self.epoch else 0
        with self._sampled(labelled, 1 + looks / total) as sample:
            for name in labelled:
                method.predict(sample[name])
        period = self.params.get("refresh") or self.params.get("period")
        if period and type(method).before_epoch is not Method.before_epoch:  # looks at all images again and again
            once = self.once
            with self._sampled(self._trained) as sample:
                for name in self._trained:
                    method.features(sample[name])
            self.epoch, self.once = self.epoch + (self.once - once) / period, once


def _once_a_kind(step: Callable[[Batch], None]) -> tuple[Callable[[Batch], None], Operations]:
    """Return a step that is done once for batches of one shape, and what the others would have done: inner batches."""
    kinds: dict[tuple, Operations] = {}
    repeated = Operations()

    def counted(batch: Batch) -> None:
        kind = (batch.phase, batch.images.shape)
        if kind in kinds:
            repeated.flops += kinds[kind].flops
            repeated.launches += kinds[kind].launches
            return
        with Operations() as kinds[kind]:
            step(batch)

    return counted, repeated


def kmeans_flops(count: int, size: int, params: dict[str, Any]) -> float:
    """Return the operations of K-means: distances of all points from all centroids, in every iteration it may take."""
    return 2.0 * count * size * params["num_clusters"] * params["restarts"] * params["max_iterations"]
