"""Train one run, exactly resumable: ``python -m dica.train --config CONFIG.json --data FOLDER --out FOLDER``.

Needs torch, torchvision, numpy and safetensors; neither Snakemake nor DVC. Exit codes: 0 done, 1 failed, 2 wrong input,
3 data are not what they should be, 75 interrupted with the state saved (run the same command again).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

# cuBLAS reads this when CUDA starts; setting it later would be too late for `strict`.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from tqdm import tqdm

from dica import methods, record
from dica.data.resident import ResidentImages
from dica.files import (
    IntegrityError,
    UserError,
    atomic_write_bytes,
    atomic_write_text,
    read_json,
    sha256_file,
    write_json,
    write_npz,
)
from dica.methods.base import Batch, Method, Phase
from dica.optim import build_optimizer, learning_rate
from dica.rng import Rng, derive_seed, generator
from dica.slots import gpu_slot, scheduler_assigned, visible_devices
from dica.state import StateFolder

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the work is saved, try again
PREDICTION_BATCH = 1000
OUTPUTS = ("config.json", "history.csv", "predictions.npz")


class Interrupted(Exception):
    """The process was asked to stop; its state is on disk."""


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


class Trainer:
    """The loop: epochs, phases, shuffled batches, checkpoints. It knows no method by name."""

    def __init__(
        self, config: dict, method: Method, images: ResidentImages, state: StateFolder, save_every: SaveEvery
    ) -> None:
        self.seed, self.params = config["seed"], config["params"]
        self.method, self.images, self.state, self.save_every = method, images, state, save_every
        self.optimizer = build_optimizer(method, self.params, images.device)
        self.epoch = self.phase = self.batch = self.step = 0
        self.sums: dict[str, dict[str, Tensor]] = {}  # phase -> loss part -> sum over the epoch's steps
        self.steps: dict[str, int] = {}
        self.history: list[dict[str, float]] = []
        self.images_seen, self.seconds, self.resumed = 0, 0.0, 0
        self.stop_requested = False

    _PLAIN = (
        "epoch",
        "phase",
        "batch",
        "step",
        "sums",
        "steps",
        "history",
        "images_seen",
        "seconds",
        "resumed",
    )

    def save(self) -> None:
        """Write a checkpoint of the present position."""
        self._check_finite()
        plain = {name: getattr(self, name) for name in self._PLAIN}
        self.state.save({"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict(), **plain})

    def resume(self) -> None:
        """Continue from the newest sound checkpoint, if there is one."""
        saved, warnings = self.state.load(self.images.device)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if saved is None:
            return
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name in self._PLAIN:
            setattr(self, name, saved[name])
        self.resumed += 1
        print(f"resumed at epoch {self.epoch + 1}, step {self.step}", file=sys.stderr)

    def run(self) -> None:
        """Train to the last epoch.

        Raises
        ------
        Interrupted
            After SIGTERM or SIGINT, with the state saved.
        UserError
            If the loss stops being a number; nothing of it reaches a checkpoint or a table.
        """
        epochs = self.params["epochs"]
        with _signals_to(self._request_stop), _progress(self.epoch, epochs) as show:
            while self.epoch < epochs:
                self._run_epoch()
                self._close_epoch()
                show(self.history[-1])

    def _request_stop(self) -> None:
        self.stop_requested = True

    def _run_epoch(self) -> None:
        phases = self.method.phases(self.epoch)
        self.method.train()
        while self.phase < len(phases):
            phase = phases[self.phase]
            batches = self._order(phase)
            while self.batch < len(batches):
                started = time.monotonic()
                self._run_batch(phase, batches[self.batch])
                self.batch += 1
                self.seconds += time.monotonic() - started
                if self.stop_requested or self.save_every.due():
                    self.save()
                if self.stop_requested:
                    raise Interrupted
            self.phase, self.batch = self.phase + 1, 0

    def _order(self, phase: Phase) -> list[Tensor]:
        """Return the index batches of one pass, shuffled by (seed, epoch, phase) alone."""
        count = sum(len(self.images.splits[name]) for name in phase.splits)
        order = torch.randperm(count, generator=generator(self.seed, "order", self.epoch, phase.name))
        batches = list(order.to(self.images.device).split(self.params["batch_size"]))
        if self.params["drop_last"] and len(batches) > 1 and len(batches[-1]) < self.params["batch_size"]:
            batches.pop()
        return batches

    def _run_batch(self, phase: Phase, indices: Tensor) -> None:
        def rng(purpose: str) -> torch.Generator:
            position = (self.epoch, phase.name, self.batch)
            return generator(self.seed, purpose, *position, device=self.images.device)

        images = self.images.take(phase.splits, indices)
        whole = Batch(images, indices, self.epoch, self.step, phase.name, rng, self._beside(phase))
        for batch in self.method.split(whole):
            self._step(batch)
        self.images_seen += len(indices)

    def _beside(self, phase: Phase) -> dict[str, Tensor]:
        """Return the second batch of this position: full batches of `phase.beside`, reshuffled when it runs out."""
        if not phase.beside:
            return {}
        count = sum(len(self.images.splits[name]) for name in phase.beside)
        size = min(self.params["batch_size"], count)
        turn, place = divmod(self.batch, count // size)
        order = torch.randperm(count, generator=generator(self.seed, "beside", self.epoch, phase.name, turn))
        indices = order[place * size : (place + 1) * size].to(self.images.device)
        return {"beside": self.images.take(phase.beside, indices), "beside_indices": indices}

    def _step(self, batch: Batch) -> None:
        params, device = self.params, self.images.device
        rate = learning_rate(params["schedule"], params["lr"], self.step, self.epoch, params["epochs"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=params["precision"] == "bfloat16"):
            parts = self.method.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        self.method.after_backward(batch)
        self.optimizer.step()
        self.method.after_step(batch)
        self.step += 1
        # Summed on the device: reading the loss here would stall a GPU at every step.
        sums = self.sums.setdefault(batch.phase, {})
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float()
        self.steps[batch.phase] = self.steps.get(batch.phase, 0) + 1

    def _means(self) -> dict[str, float]:
        return {
            (name if phase == "main" else f"{phase}_{name}"): float(total) / self.steps[phase]
            for phase, parts in self.sums.items()
            for name, total in parts.items()
        }

    def _check_finite(self) -> None:
        bad = [name for name, value in self._means().items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"loss not finite by epoch {self.epoch + 1}, step {self.step} ({', '.join(bad)}), seed {self.seed}; "
                f"the last good checkpoint is kept in {self.state.folder}"
            )

    def _close_epoch(self) -> None:
        self._check_finite()
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append({"epoch": self.epoch + 1, "step": self.step, **self._means(), "lr": rate})
        self.sums, self.steps, self.phase = {}, {}, 0
        self.epoch += 1


@contextlib.contextmanager
def _signals_to(request) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: request()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


@torch.no_grad()
def predict(method: Method, images: ResidentImages, rng: Rng) -> dict[str, np.ndarray]:
    """Return assignment and confidence of every image of the labelled splits, in the prepared order."""
    splits = [name for name in ("train", "test") if name in images.splits]
    method.before_predict({name: images.all_of(name) for name in images.splits}, rng)
    method.eval()
    arrays: dict[str, np.ndarray] = {"num_clusters": np.int32(method.params["num_clusters"])}
    for name in splits:
        probs = torch.cat([method.predict(part).float() for part in images.all_of(name).split(PREDICTION_BATCH)])
        confidence, assignment = probs.max(dim=1)
        arrays[f"{name}_assignment"] = assignment.cpu().numpy().astype(np.int16)
        arrays[f"{name}_confidence"] = confidence.cpu().numpy().astype(np.float16)
    return arrays


def train_run(config: dict, data: Path, out: Path, models: Path, state_folder: Path, options: Options) -> None:
    """Train, predict and write one run: ``run.json`` comes last, so its presence means that the run is complete."""
    started = datetime.now(UTC)
    state = StateFolder(state_folder, config["id"])
    state.clear_failure()
    try:
        with _device(options) as device:
            _set_numerics(config["determinism"], config["params"].get("precision", "float32"))
            images = ResidentImages(data, device)
            _check_data(config, images, data)
            torch.manual_seed(derive_seed(config["seed"], "init"))  # networks draw their weights from the global stream
            method = methods.build(config["method"], config["params"], images.info).to(device)
            code = record.code_state()  # now, not at the end: files may be edited while the run goes on
            trainer = _fit(config, method, images, state, options)
            arrays = predict(method, images, lambda p: generator(config["seed"], p, "predict", device=device))
            _write_outputs(config, method, trainer, arrays, out, models)
            _write_record(config, code, trainer, images, started, out, models)
    except Interrupted:
        raise
    except BaseException as error:
        state.fail(f"{type(error).__name__}: {error}")
        raise
    state.discard_checkpoints()


@dataclass
class Fitted:
    """What is recorded of a method that is fitted in one go, without gradient steps."""

    history: list[dict[str, float]]
    images_seen: int
    seconds: float
    resumed: int = 0


def _fit(config: dict, method: Method, images: ResidentImages, state: StateFolder, options: Options):
    if hasattr(method, "fit"):
        begin = time.monotonic()
        history = method.fit({name: images.all_of(name) for name in images.splits}, config["seed"])
        return Fitted(history, sum(images.info.counts.values()), time.monotonic() - begin)
    method.to(memory_format=torch.channels_last)
    trainer = Trainer(config, method, images, state, SaveEvery(options.save_seconds, options.save_batches))
    trainer.resume()
    trainer.run()
    return trainer


@contextlib.contextmanager
def _device(options: Options) -> Iterator[torch.device]:
    """Yield the device to train on: a free GPU slot, what the scheduler gave, or the CPU."""
    torch.set_num_threads(options.threads)
    devices = [] if options.device == "cpu" else visible_devices()
    if options.device == "cuda" and not devices:
        raise UserError("--device cuda: torch sees no CUDA device here")
    if not devices:
        yield torch.device("cpu")
    elif scheduler_assigned():
        yield torch.device("cuda", 0)
    else:
        with gpu_slot(devices, options.gpu_share) as index:
            torch.cuda.set_device(index)
            yield torch.device("cuda", index)


def _set_numerics(determinism: str, precision: str) -> None:
    """Set how exact a GPU computes.

    Parameters
    ----------
    determinism
        `fast` (cuDNN may tune its kernels), `seeded` (no tuning), `strict` (deterministic kernels or an error).
    precision
        `float32` is meant as it says; only `tf32` and `bfloat16` let matrix products round their inputs.
    """
    rounded = precision != "float32"
    torch.backends.cudnn.benchmark = determinism == "fast"
    torch.use_deterministic_algorithms(determinism == "strict")
    torch.set_float32_matmul_precision("high" if rounded else "highest")
    torch.backends.cudnn.allow_tf32 = rounded


def _check_data(config: dict, images: ResidentImages, folder: Path) -> None:
    found = (images.manifest["fingerprint"], images.manifest["data_id"])
    if config["data_id"] not in found:
        raise IntegrityError(
            f"{folder}: these images have fingerprint {found[0]}, the run {config['id']} was planned for "
            f"{config['data_id']}; prepare {config['dataset']} again or correct params/datasets.yaml"
        )


def _write_outputs(config: dict, method: Method, trainer, arrays: dict, out: Path, models: Path) -> None:
    write_json(out / "config.json", config)
    atomic_write_text(out / "history.csv", history_csv(trainer.history))
    write_npz(out / "predictions.npz", arrays)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in method.state_dict().items()}
    atomic_write_bytes(models / "weights.safetensors", safetensors_bytes(weights))


def history_csv(history: list[dict[str, float]]) -> str:
    """Return the loss history as CSV text, one row an epoch."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()})
    return buffer.getvalue()


def _write_record(
    config: dict, code: dict, trainer, images: ResidentImages, started: datetime, out: Path, models: Path
) -> None:
    device = images.device.type
    files = {name: sha256_file(out / name) for name in OUTPUTS}
    files["weights.safetensors"] = sha256_file(models / "weights.safetensors")
    write_json(
        out / "run.json",
        {
            **{key: config[key] for key in ("id", "method", "variant", "dataset", "seed", "determinism")},
            **code,
            "versions": record.versions(),
            "device": record.device_facts(device),
            "data": {name: split["sha256"] for name, split in images.manifest["splits"].items()},
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(trainer.seconds, 2),
            "images_per_second": round(trainer.images_seen / trainer.seconds, 1) if trainer.seconds else None,
            "peak_memory_mb": record.peak_memory_mb(device),
            "resumed": trainer.resumed,
            "files": files,
        },
    )


@dataclass
class Options:
    """How to run, as opposed to what: nothing here changes a result."""

    device: str = "auto"
    gpu_share: int = 1
    threads: int = 1
    save_seconds: float = 300.0
    save_batches: int = 0


def find_config(plan: Path, run_id: str) -> dict:
    """Return the config of one run of a plan.

    Raises
    ------
    UserError
        If the plan has no such run.
    """
    for run in read_json(plan)["runs"]:
        if run["id"] == run_id:
            return {key: value for key, value in run.items() if key not in ("path", "variants", "needed_by")}
    raise UserError(f"{plan}: no run {run_id}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m dica.train", description="Train one run of the archive.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="config.json of a run (an earlier run's will do)")
    source.add_argument("--plan", type=Path, help="plan.json; needs --run")
    parser.add_argument("--run", help="id of the run in the plan")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for config, history, predictions, record")
    parser.add_argument("--models", type=Path, help="folder for the weights (default: --out)")
    parser.add_argument("--state", type=Path, help="folder for checkpoints (default: OUT.state)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--gpu-share", type=int, default=1, help="runs that may share one GPU")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-seconds", type=float, default=300.0, help="seconds between checkpoints")
    parser.add_argument("--save-batches", type=int, default=0, help="batches between checkpoints (0: by time only)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = parse(arguments)
    options = Options(given.device, given.gpu_share, given.threads, given.save_seconds, given.save_batches)
    try:
        if given.plan and not given.run:
            raise UserError("--plan needs --run ID")
        config = read_json(given.config) if given.config else find_config(given.plan, given.run)
        name = f"{config['method']} ({config['variant']}) on {config['dataset']}, seed {config['seed']}"
        print(f"train {name}: run {config['id']}", file=sys.stderr, flush=True)
        state = given.state or given.out.with_name(given.out.name + ".state")
        train_run(config, given.data, given.out, given.models or given.out, state, options)
    except Interrupted:
        print("interrupted; the state is saved, run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    print(f"done {name}: {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
