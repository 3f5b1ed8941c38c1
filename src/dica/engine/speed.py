"""Faster steps for a GPU, in runs with `determinism: fast`: networks and views compiled, whole steps as CUDA graphs.

Both are off unless asked for, both are in ``run.json`` (`speed`), and where one cannot be had there is an error or a
warning that is recorded too. Neither changes what is computed, but the last bits may be others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dica.engine.distributed import processes
from dica.files import UserError
from dica.methods.base import Batch, Method

WARM_UP = 3  # steps of one kind before it is recorded: by then all memory and every kernel is chosen

Update = Callable[[Batch, float], dict[str, Tensor]]


@dataclass
class Speed:
    """How the steps of a run are executed.

    Attributes
    ----------
    compile : the compiler of networks and views, None for eager execution
    cuda_graph : whether steps are replayed
    notes : what was asked for and could not be had
    """

    compile: str | None = None
    cuda_graph: bool = False
    notes: list[str] = field(default_factory=list)


def choose(want_compile: bool, want_graph: bool, determinism: str, device: torch.device, method: Method) -> Speed:
    """Return what of the wanted options this run gets.

    Raises
    ------
    UserError
        If the run's level of determinism forbids it, or the method's step cannot be replayed.
    """
    wanted = [name for name, given in (("--compile", want_compile), ("--cuda-graph", want_graph)) if given]
    if wanted and determinism != "fast":
        raise UserError(f"{' and '.join(wanted)}: only for runs with determinism: fast, this one has {determinism}")
    if wanted and processes() > 1:
        raise UserError(f"{' and '.join(wanted)}: not for a run of several processes; leave it out or use one GPU")
    if want_graph and not method.replayable:
        raise UserError(f"--cuda-graph: a step of {type(method).__name__} depends on more than its batch; leave it out")
    if wanted and device.type != "cuda":
        note = f"{' and '.join(wanted)}: not used, there is no GPU"
        print(f"warning: {note}", file=sys.stderr)
        return Speed(notes=[note])
    return Speed("inductor" if want_compile else None, want_graph)


def compile_parts(method: Method, backend: str) -> None:
    """Compile networks and pipelines of views in place for `compiled` blocks; names, weights and draws stay."""
    # Too many shapes would otherwise mean eager execution from then on, without a word.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for network in method.networks():
        network.compile(backend=backend, dynamic=False)
    for pipeline in method.pipelines():
        pipeline.compile(backend)
    torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def compiled(method: Method) -> Iterator[None]:
    """Return a block in which compiled parts run compiled; elsewhere (targets, prediction) they run eagerly."""
    pipelines = method.pipelines()
    for pipeline in pipelines:
        pipeline.fast = True
    try:
        with torch.compiler.set_stance("default"):
            yield
    finally:
        for pipeline in pipelines:
            pipeline.fast = False


class CudaRecording:
    """One step as a CUDA graph.

    Parameters
    ----------
    step
        Runs on tensors that stay where they are and returns such tensors; it is captured, not executed.
    generators
        All that the step draws from.
    """

    def __init__(self, step: Callable[[], dict[str, Tensor]], generators: list[torch.Generator]) -> None:
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.result = step()

    def replay(self) -> None:
        """Execute the step; seeds set on the generators since the last time take effect."""
        self.graph.replay()


class ReplayedUpdate:
    """Stands in for `Trainer`'s update: records one step of each kind and replays it from then on.

    A kind of step is a phase with the shapes of a batch. Its graph is good as long as the learning rate, a number
    inside it, and the method's `regime` stay as they are.
    What changes from step to step comes in by copies into the recorded batch and by new seeds for its generators.
    """

    def __init__(
        self,
        update: Update,
        optimizer: torch.optim.Optimizer,
        regime: Callable[[Batch], tuple],
        record: Callable = CudaRecording,
    ) -> None:
        self.update, self.optimizer, self.regime, self.record = update, optimizer, regime, record
        self.kinds: dict[tuple, _Kind] = {}

    def __call__(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Do one step; the returned tensors are overwritten by the next one."""
        key = (batch.phase, *((name, value.shape, value.dtype) for name, value in _tensors(batch).items()))
        kind, within = self.kinds.get(key), (rate, *self.regime(batch))
        if kind is None or kind.within != within:
            kind = self.kinds[key] = _Kind(within)  # a graph of other numbers is dropped
        if kind.recording is None and kind.seen < WARM_UP:
            return self._warm_up(kind, batch, rate)
        if kind.recording is None:
            self._record(kind, batch, rate)
        kind.load(batch)
        assert kind.recording is not None  # `_record` has made it
        kind.recording.replay()
        return kind.recording.result

    def _warm_up(self, kind: _Kind, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Do an eager step, and note which random numbers it asks for."""
        kind.seen, kind.purposes = kind.seen + 1, []

        def rng(purpose: str) -> torch.Generator:
            if purpose in kind.purposes:
                raise RuntimeError(f"{purpose!r} is drawn twice in a step: it cannot be replayed")
            kind.purposes.append(purpose)
            return batch.rng(purpose)

        watched = dataclasses.replace(batch, rng=rng)
        if batch.images.device.type != "cuda":
            return self.update(watched, rate)
        # Capturing needs autograd to have run on another stream than the default one.
        side, now = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            parts = self.update(watched, rate)
        now.wait_stream(side)
        for value in parts.values():
            value.record_stream(now)
        return parts

    def _record(self, kind: _Kind, batch: Batch, rate: float) -> None:
        device = batch.images.device
        kind.generators = {purpose: torch.Generator(device) for purpose in kind.purposes}
        copies = {name: value.clone(memory_format=torch.preserve_format) for name, value in _tensors(batch).items()}
        kind.batch = dataclasses.replace(
            batch,
            images=copies.pop("images"),
            indices=copies.pop("indices"),
            extra={name: copies[name] for name in batch.extra},
            rng=kind.generators.__getitem__,
        )
        kind.load(batch)
        self.optimizer.zero_grad(set_to_none=True)  # the gradients get memory of the graph
        kind.recording = self.record(lambda: self.update(kind.batch, rate), list(kind.generators.values()))


@dataclass
class _Kind:
    within: tuple
    seen: int = 0
    purposes: list[str] = field(default_factory=list)
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    batch: Batch | None = None
    recording: CudaRecording | None = None

    def load(self, batch: Batch) -> None:
        """Bring a batch and its random numbers to where the recorded step finds them."""
        assert self.batch is not None  # the one that was recorded
        new, old = _tensors(batch), _tensors(self.batch)
        for name, value in new.items():
            old[name].copy_(value)
        for purpose, generator in self.generators.items():
            generator.manual_seed(batch.rng(purpose).initial_seed())


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {"images": batch.images, "indices": batch.indices, **batch.extra}
