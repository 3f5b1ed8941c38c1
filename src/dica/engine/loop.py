"""The training loop: epochs, phases, shuffled batches, checkpoints, and how it stops. It knows no method by name."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dica.engine.checkpoints import StateFolder
from dica.engine.distributed import any_of, sum_gradients
from dica.engine.images import ResidentImages
from dica.engine.observer import Observer
from dica.engine.optim import build_optimizer, learning_rate, load_optimizer
from dica.engine.speed import WARM_UP, ReplayedUpdate, Speed, Update, compile_parts, compiled
from dica.engine.tracker import EventFile
from dica.files import UserError
from dica.methods.base import Batch, Method, Phase
from dica.rng import generator
from dica.runs.record import code_changes

PAST_WARM_UP = 10**6  # a step whose learning rate and frozen parts are those of most


class Interrupted(KeyboardInterrupt):
    """The loop was asked to stop; its state is on disk. Outside the loop a plain KeyboardInterrupt says the same."""


@dataclass
class SaveEvery:
    """When to write a checkpoint: after so many seconds, or (for tests) so many batches; 0 turns one off."""

    seconds: float = 300.0
    batches: int = 0
    _last: float = field(default_factory=time.monotonic)
    _count: int = 0

    def due(self) -> bool:
        """Count one batch and return whether a checkpoint is due now."""
        self._count += 1
        late = self.seconds and time.monotonic() - self._last >= self.seconds
        if late or (self.batches and self._count >= self.batches):
            self._last, self._count = time.monotonic(), 0
            return True
        return False


@dataclass
class Position:
    """How far a run has come and what it has noted so far: all that a checkpoint holds of the loop itself.

    Attributes
    ----------
    epoch, phase, batch : how many are done: of the run, of the epoch, of the phase
    step : gradient steps taken
    sums : phase -> loss part -> its sum over the epoch's steps
    steps : phase -> the epoch's steps
    history : one row an epoch
    images_seen, seconds : of training, in all attempts
    resumed : how often training went on from a checkpoint
    attempts : where and with what code each attempt ran; see `dica.runs.record.attempt`
    """

    epoch: int = 0
    phase: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    images_seen: int = 0
    seconds: float = 0.0
    resumed: int = 0
    attempts: list[dict] = field(default_factory=list)

    def fault(self, epochs: int) -> str:
        """Return which of these is no position of a run of so many epochs, or nothing."""
        for name, kind in ((name, type(value)) for name, value in vars(Position()).items()):
            value = getattr(self, name)
            if type(value) is not kind or (kind in (int, float) and value < 0):
                return f"{name} is {value!r:.40}"
        whole = all(isinstance(row, dict) for row in (*self.history, *self.attempts))
        summed = all(torch.is_tensor(total) for parts in self.sums.values() for total in parts.values())
        if not whole or not summed or self.sums.keys() != self.steps.keys():
            return "what it has noted is of another form"
        if self.epoch > epochs or len(self.history) != self.epoch:
            return f"epoch is {self.epoch} of {epochs}, {len(self.history)} are noted"
        return ""


class Trainer:
    """Train a method from where its state folder left off to the last epoch."""

    def __init__(
        self,
        config: dict,
        method: Method,
        images: ResidentImages,
        state: StateFolder,
        save_every: SaveEvery,
        speed: Speed | None = None,
    ) -> None:
        self.seed, self.params = config["seed"], config["params"]
        self.method, self.images, self.state, self.save_every = method, images, state, save_every
        speed = speed or Speed()
        self.optimizer = build_optimizer(method, self.params, images.device, capturable=speed.cuda_graph)
        self.update: Update = self._update
        if speed.cuda_graph:
            self.update = ReplayedUpdate(self._update, self.optimizer, method.regime)
        self.running = partial(compiled, method) if speed.compile else contextlib.nullcontext
        if speed.compile:
            compile_parts(method, speed.compile)
        self.observer = Observer(config, images)
        self.at = Position()
        self.stop_requested = False
        self._on_host: list[np.ndarray] = []  # the batches of the phase under way
        self._second: tuple[tuple, Tensor] | None = None  # a turn of the second batches, and its order

    @property
    def history(self) -> list[dict[str, float]]:
        """The mean of each part of the loss, one row an epoch."""
        return self.at.history

    def save(self) -> None:
        """Write a checkpoint of the present position."""
        self._check_finite()
        self.state.save(
            {
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "looks": self.observer.looks,
                "at": vars(self.at),
            }
        )

    def resume(self) -> None:
        """Continue from the newest sound checkpoint, if there is one."""
        saved, warnings = self.state.load(self.images.device, self._unfit)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if saved is None:
            return
        self.method.load_state_dict(saved["method"])
        load_optimizer(self.optimizer, saved["optimizer"])
        self.observer.looks = saved["looks"]
        self.at = Position(**saved["at"])
        self.at.resumed += 1
        print(f"resumed at epoch {self.at.epoch + 1}, step {self.at.step}", file=sys.stderr)

    def _unfit(self, saved: dict) -> str:
        """Return why this run cannot go on from a state, or nothing; asked before anything is taken over.

        A state of other code may lack a buffer or have one of another shape. Taken over in part it would leave neither
        that state nor a new run.
        """
        try:
            theirs, groups = saved["method"], [len(group["params"]) for group in saved["optimizer"]["param_groups"]]
            wrong = Position(**saved["at"]).fault(self.params["epochs"])
            shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
            looked = all(isinstance(look["epoch"], int) for look in saved["looks"])
        except (KeyError, TypeError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        if wrong or not looked:
            return wrong or "looks are not what the observer leaves"
        mine = {name: tuple(tensor.shape) for name, tensor in self.method.state_dict().items()}
        for name in sorted(shapes.keys() | mine.keys()):
            if shapes.get(name) != mine.get(name):
                return f"{name} is {shapes.get(name, 'not there')}, here {mine.get(name, 'not there')}"
        if groups != [len(group["params"]) for group in self.optimizer.param_groups]:
            return "its optimiser has other parameters"
        return ""

    def begin(self, attempt: dict) -> None:
        """Add this attempt to those behind the state; warn if the last one ran other code, which no id shows.

        Raises
        ------
        UserError
            If the run that this one builds on was trained anew since: one half would rest on other weights.
        """
        source = attempt.get("source")
        if self.at.attempts and self.at.attempts[-1].get("source", source) != source:
            raise UserError(
                f"the run that this one builds on has other weights than when this one began (seed {self.seed}); "
                f"remove {self.state.folder} to begin again"
            )
        changes = code_changes(self.at.attempts[-1], attempt) if self.at.attempts else []
        if changes:
            print(f"warning: resumed with other code or processor than before: {'; '.join(changes)}", file=sys.stderr)
        self.at.attempts.append(attempt)

    def run(self, first: int = 0, tracked: EventFile | None = None) -> None:
        """Train to the last epoch, or through the `first` ones alone if that is above 0.

        Parameters
        ----------
        tracked
            Gets each row of the history as soon as there is one.

        Raises
        ------
        Interrupted
            After SIGTERM or SIGINT, with the state saved.
        UserError
            If the loss stops being a number; nothing of it reaches a checkpoint or a table.
        """
        epochs = min(first or self.params["epochs"], self.params["epochs"])
        with on_signals(self._request_stop, signal.SIGTERM, signal.SIGINT), _progress(self.at.epoch, epochs) as show:
            self.observer.look(self.method, self.at.epoch, self.at.seconds)
            while self.at.epoch < epochs and self._goes_on():
                self._run_epoch()
                self._close_epoch()
                self.observer.look(self.method, self.at.epoch, self.at.seconds)
                show(self.history[-1])
                if tracked:
                    tracked.add(self.history[-1])
        self._stop_if_requested()  # a signal may have come after the last batch

    def trial(self, seconds: float) -> float:
        """Train for a while and return the seconds that an epoch takes; afterwards the trainer is of no more use.

        On a CPU these are seconds of processor time: what else runs on the machine must not change a recipe.
        """
        clock = time.monotonic if self.images.device.type == "cuda" else time.process_time
        self.method.train()
        phases, total = self.method.phases(0), 0.0
        self.at.step = PAST_WARM_UP
        for self.at.phase, phase in enumerate(phases):
            batches = self._order(phase)
            for turn in range(WARM_UP + 1 if isinstance(self.update, ReplayedUpdate) else 1):  # what is set up once
                self._run_batch(phase, batches[turn % len(batches)])
            self._wait()
            started, done = clock(), 0
            while not done or clock() - started < seconds / len(phases):
                self.at.batch = done % len(batches)
                self._run_batch(phase, batches[self.at.batch])
                self._wait()
                done += 1
            total += (clock() - started) / done * len(batches)
        return total

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True

    def _stop_if_requested(self) -> None:
        if any_of(self.stop_requested):
            self.save()
            raise Interrupted

    def _goes_on(self) -> bool:
        """Show the method all images, unless it is inside an epoch; return whether it wants this one."""
        if self.at.phase == self.at.batch == 0:
            started = time.monotonic()
            device = self.images.device
            splits = {name: self.images.all_of(name) for name in self.images.splits}
            self.method.before_epoch(
                self.at.epoch, splits, lambda purpose: generator(self.seed, purpose, self.at.epoch, device=device)
            )
            self.at.seconds += time.monotonic() - started
        return not self.method.finished()

    def _run_epoch(self) -> None:
        phases = self.method.phases(self.at.epoch)
        self.method.train()
        while self.at.phase < len(phases):
            phase = phases[self.at.phase]
            batches = self._order(phase)
            while self.at.batch < len(batches):
                started = time.monotonic()
                self._run_batch(phase, batches[self.at.batch])
                self.at.batch += 1
                if self.at.batch < len(batches):
                    self.images.prefetch(phase.splits, batches[self.at.batch])
                self.at.seconds += time.monotonic() - started
                self._stop_if_requested()
                if self.save_every.due():
                    self.save()
            self.at.phase, self.at.batch = self.at.phase + 1, 0
            self._wait()

    def _wait(self) -> None:
        """Let a GPU finish what it was given and count its time: steps are launched long before they are done."""
        if self.images.device.type == "cuda":
            started = time.monotonic()
            torch.cuda.synchronize(self.images.device)
            self.at.seconds += time.monotonic() - started

    def _order(self, phase: Phase) -> list[Tensor]:
        """Return the index batches of a pass (`epoch_batches`: its first), shuffled by (seed, epoch, phase) alone."""
        count = sum(len(self.images.splits[name]) for name in phase.splits)
        order = torch.randperm(count, generator=generator(self.seed, "order", self.at.epoch, phase.name))
        batches = list(order.to(self.images.index_device).split(self.params["batch_size"]))
        self._on_host = [rows.numpy() for rows in order.split(self.params["batch_size"])]
        if self.params["drop_last"] and len(batches) > 1 and len(batches[-1]) < self.params["batch_size"]:
            batches.pop()
        return batches[: self.params.get("epoch_batches")]

    def _run_batch(self, phase: Phase, indices: Tensor) -> None:
        def rng(purpose: str) -> torch.Generator:
            position = (self.at.epoch, phase.name, self.at.batch)
            return generator(self.seed, purpose, *position, device=self.images.device)

        images = self.images.take(phase.splits, indices)

        def take(rows: Tensor) -> Tensor:
            return self.images.take(phase.splits, rows.to(self.images.index_device))

        indices = indices.to(self.images.device, non_blocking=True)
        on_host = self._on_host[self.at.batch] if self._on_host else None
        place = (self.at.epoch, self.at.step, phase.name)
        whole = Batch(images, indices, *place, rng, self._second_batch(phase), take, on_host)
        for batch in self.method.split(whole):
            self._step(batch)
        self.at.images_seen += len(indices)

    def _second_batch(self, phase: Phase) -> dict[str, Tensor]:
        """Return the second batch of this position: full batches of `phase.second`, reshuffled when it runs out."""
        if not phase.second:
            return {}
        count = sum(len(self.images.splits[name]) for name in phase.second)
        size = min(self.params["batch_size"], count)
        turn, place = divmod(self.at.batch, count // size)
        turn_of = (self.at.epoch, phase.name, turn)
        if self._second is None or self._second[0] != turn_of:  # drawn once a turn: all of it takes milliseconds
            # "beside" is the address of these draws: it stays as it was when runs drew by it.
            order = torch.randperm(count, generator=generator(self.seed, "beside", *turn_of))
            self._second = (turn_of, order.to(self.images.index_device, non_blocking=True))
        indices = self._second[1][place * size : (place + 1) * size]
        images = self.images.take(phase.second, indices)
        return {"second": images, "second_indices": indices.to(self.images.device, non_blocking=True)}

    def _step(self, batch: Batch) -> None:
        params = self.params
        rate = learning_rate(params["schedule"], params["lr"], self.at.step, self.at.epoch, params["epochs"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        values = self.update(batch, rate)
        self.at.step += 1
        # Summed on the device, all in one launch: reading the loss here would stall a GPU at every step.
        sums = self.at.sums.setdefault(batch.phase, {})
        for name, value in values.items():
            if name not in sums:
                sums[name] = torch.zeros_like(value)
        torch._foreach_add_([sums[name] for name in values], list(values.values()))
        self.at.steps[batch.phase] = self.at.steps.get(batch.phase, 0) + 1

    def _update(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Take one gradient step and return the parts of the loss; `rate` is the one that the optimiser has."""
        half = self.params["precision"] == "bfloat16"
        with torch.autocast(self.images.device.type, dtype=torch.bfloat16, enabled=half), self.running():
            step = self.method.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        step.loss.backward(inputs=self.method.trains(batch))
        sum_gradients(self.method)
        self.method.after_backward(batch)
        self.optimizer.step()
        self.method.after_step(batch, step.carry)
        return {name: value.detach().float() for name, value in {"loss": step.loss, **step.parts}.items()}

    def _means(self) -> dict[str, float]:
        return {
            (name if phase == "main" else f"{phase}_{name}"): float(total) / self.at.steps[phase]
            for phase, parts in self.at.sums.items()
            for name, total in parts.items()
        }

    def _check_finite(self) -> None:
        bad = [name for name, value in self._means().items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"loss not finite by epoch {self.at.epoch + 1}, step {self.at.step} ({', '.join(bad)}), "
                f"seed {self.seed}; the last good checkpoint is kept in {self.state.folder}"
            )

    def _close_epoch(self) -> None:
        self._check_finite()
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append({"epoch": self.at.epoch + 1, "step": self.at.step, **self._means(), "lr": rate})
        self.at.sums, self.at.steps, self.at.phase = {}, {}, 0
        self.at.epoch += 1


@contextlib.contextmanager
def on_signals(handler: Callable, *numbers: int) -> Iterator[None]:
    """Let `handler` answer the signals `numbers` inside the block; afterwards they do what they did before.

    In another thread than the main one, where Python lets nobody ask for signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _progress(epoch: int, epochs: int) -> Iterator:
    """Yield a function to call after each epoch: a bar in a terminal, a line every ten seconds in a log."""
    with tqdm(total=epochs, initial=epoch, unit="epoch", disable=not sys.stderr.isatty()) as bar:
        last = time.monotonic()

        def show(row: dict[str, float]) -> None:
            nonlocal last
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}")
            if bar.disable and (row["epoch"] == epochs or time.monotonic() - last >= 10):
                last = time.monotonic()
                parts = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key not in ("epoch", "step"))
                print(f"epoch {row['epoch']}/{epochs}  step {row['step']}  {parts}", file=sys.stderr, flush=True)

        yield show
