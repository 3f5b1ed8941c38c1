"""Train one run, exactly resumable: ``python -m dica.train --config CONFIG.json --data FOLDER --out FOLDER``.

This file is what surrounds the loop (`dica.engine.loop`): config, device, data, prediction, record and command line.

Needs torch, numpy, safetensors and tqdm; neither Snakemake nor DVC. Exit codes: 0 done, 1 failed, 2 wrong
input, 3 data are not what they should be, 75 interrupted (run the same command again).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# cuBLAS reads this when CUDA starts; setting it later would be too late for `strict`.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from torch.nn.functional import one_hot

from dica import methods
from dica.data.paths import labels_of_prepared
from dica.data.prepared import train_labels
from dica.data.splits import require_enough
from dica.engine import distributed
from dica.engine.checkpoints import StateFolder
from dica.engine.images import PLACES, ResidentImages
from dica.engine.load import RunFolders, load_trained
from dica.engine.loop import Position, SaveEvery, Trainer, on_signals
from dica.engine.memory import keep_memory
from dica.engine.observer import Observer
from dica.engine.outputs import Done, record_of, write_outputs
from dica.engine.slots import gpu_slot, visible_devices
from dica.engine.speed import Speed, choose
from dica.engine.tracker import EventFile
from dica.files import (
    INTERRUPTED,
    IntegrityError,
    UserError,
    atomic_write_bytes,
    atomic_write_text,
    canonical_json,
    explain_os_error,
    parse_json,
    read_json,
)
from dica.losses.common import leading
from dica.methods.base import FitMethod, Method
from dica.rng import Rng, derive_seed, generator
from dica.runs import record
from dica.runs.files import HISTORY, RECORD
from dica.runs.finished import is_finished, keep_record, put_back
from dica.runs.ids import IDENTITY_KEYS, run_id
from dica.scripting import print_anywhere

PREDICTION_BATCH = 1000
LONGEST_SILENCE_S = 1200  # the further processes of a run give up when the first one says nothing for half an hour


@torch.no_grad()
def predict(method: Method, images: ResidentImages, rng: Rng) -> dict[str, np.ndarray]:
    """Return assignment and confidence of every image of the labelled splits, in the prepared order.

    With `top5` among the parameters also the five most probable clusters, the first one first; of a method that is not
    to be scored on every image, which ones (see `Method.judged`); of one with several cluster heads, what each gives.

    Raises
    ------
    UserError
        If a probability is not a number: the last update spoilt the weights, which no loss has shown.
    """
    splits = [name for name in ("train", "test") if name in images.splits]
    method.before_predict({name: images.all_of(name) for name in images.splits}, rng)
    method.eval()
    known = method.known()
    arrays: dict[str, np.ndarray] = {"num_clusters": np.array(method.params["num_clusters"], np.int32)}
    for name in splits:
        parts = images.all_of(name).split(PREDICTION_BATCH)  # moved one by one: they may be in the main memory
        if name in known:
            probs = one_hot(known[name], method.params["num_clusters"]).float()
        else:
            probs = torch.cat([method.predict(part.to(images.device)).float() for part in parts])
        if not torch.isfinite(probs).all():
            raise UserError(f"predictions are not numbers on split {name}: the last update spoilt the weights")
        confidence, assignment = probs.max(dim=1)
        arrays[f"{name}_assignment"] = assignment.cpu().numpy().astype(np.int16)
        arrays[f"{name}_confidence"] = confidence.cpu().numpy().astype(np.float16)
        if method.params.get("top5"):
            scores = torch.cat([method.scores(part.to(images.device)).float() for part in parts])
            # the assignment comes first, also where scores and probabilities are equal or disagree by rounding
            best = leading(scores.scatter(1, assignment[:, None], torch.inf), 5)
            arrays[f"{name}_top5"] = best.cpu().numpy().astype(np.int16)
        each = [method.predict_heads(part.to(images.device)) for part in parts]
        if name not in known and (heads := [one for one in each if one is not None]):
            arrays[f"{name}_heads"] = torch.cat(heads, dim=1).cpu().numpy().astype(np.int16)
    arrays |= {f"{name}_judged": mask.cpu().numpy() for name, mask in method.judged().items()}
    return arrays


@dataclass
class Inputs:
    """What a run reads.

    Attributes
    ----------
    data : folder of the prepared images
    labels : file of their labels, opened for a supervised method alone
    source : where the run lies that this one builds on
    """

    data: Path
    labels: Path
    source: RunFolders | None = None


def train_run(config: dict, inputs: Inputs, out: Path, models: Path, state_folder: Path, options: Options) -> None:
    """Train, predict and write one run: ``run.json`` comes last, so its presence means that the run is complete.

    Of a finished run nothing is written. One that another process trains is waited for, and then it is finished.
    """
    first, place = distributed.is_first(), (config["id"], out, models)
    if distributed.from_first(first and is_finished(*place)):
        return
    wait_s = 60 * options.wait if distributed.processes() == 1 else min(60 * options.wait, LONGEST_SILENCE_S)
    with contextlib.closing(StateFolder(state_folder, config["id"], not first, wait_s)) as state:
        if not distributed.from_first(first and (is_finished(*place) or put_back(*place, state_folder))):
            state.clear_failure()
            _train_and_write(config, inputs, out, models, state, options)
            state.discard_checkpoints()


def _train_and_write(
    config: dict, inputs: Inputs, out: Path, models: Path, state: StateFolder, options: Options
) -> None:
    started = datetime.now(UTC)
    try:
        with _device(options) as device:
            _announce(config, device)
            _set_numerics(config["determinism"], config["params"].get("precision", "float32"))
            images = ResidentImages(inputs.data, device, options.images, options.gpu_share)
            _check_data(config, images, inputs.data)
            require_enough(config["params"], images.info)
            torch.manual_seed(derive_seed(config["seed"], "init"))  # networks draw their weights from the global stream
            method = methods.build(config["method"], config["params"], images.info).to(device)
            source = give_source(config, method, inputs, images)
            give_labels(config, method, inputs, device)
            code = record.code_state()  # now, not at the end: files may be edited while the run goes on
            attempt = record.attempt(started, code, device.type)
            if source:
                attempt["source"] = source["weights_sha256"]
            speed = choose(options.compile, options.cuda_graph, config["determinism"], device, method)
            at, observer = _fit(config, method, images, state, options, speed, attempt)
            if 0 < options.first_epochs <= at.epoch < config["params"]["epochs"]:
                if distributed.is_first():
                    atomic_write_text(out / HISTORY, record.history_csv(at.history))
                return
            arrays = predict(method, images, lambda p: generator(config["seed"], p, "predict", device=device))
            if not distributed.is_first():
                return
            extra = {"source": source, "method_record": method.record()}
            extra["speed"] = {**asdict(speed), "images": images.place, "processes": distributed.processes()}
            done = Done(config, code, started, images, method, at, observer, arrays, extra)
            write_outputs(done, out, models)
            written = record_of(done, out, models)
            keep_record(written, state.folder)
            atomic_write_bytes(out / RECORD, written)
    except KeyboardInterrupt:
        raise  # stopped, not failed
    except BaseException as error:
        state.fail(f"{type(error).__name__}: {error}")
        raise


def give_source(config: dict, method: Method, inputs: Inputs, images: ResidentImages) -> dict:
    """Let a method adopt the run that it builds on; return what the record says of that run, nothing without one.

    Raises
    ------
    UserError
        If the parameters name a source and no folder is given, or the other way round; see also `load_trained`.
    """
    wanted = config["params"].get("source")
    below = inputs.source
    if wanted and not below:
        name = f"{wanted['method']} ({wanted['variant']}), run {wanted['id']}"
        raise UserError(f"{title(config)} builds on {name}: give its folder with --source (weights: --source-models)")
    if below and not wanted:
        raise UserError(f"--source: {title(config)} builds on no other run")
    if not below:
        return {}
    source, facts = load_trained(below, wanted["id"], images.info, images.device)
    method.adopt(source, {name: images.all_of(name) for name in images.splits})
    method.to(images.device)
    return facts


def give_labels(config: dict, method: Method, inputs: Inputs, device: torch.device) -> None:
    """Open the labels of the train split for a supervised method, and for no other."""
    if method.supervised != config["params"].get("supervised", False):
        raise UserError(f"{config['method']}: supervised: {method.supervised} needs to stand in the parameters as well")
    if method.supervised:
        method.give_labels(torch.from_numpy(train_labels(inputs.data, inputs.labels)).to(device))


def _fit(
    config: dict,
    method: Method,
    images: ResidentImages,
    state: StateFolder,
    options: Options,
    speed: Speed,
    attempt: dict,
) -> tuple[Position, Observer | None]:
    """Train a method; return where that ended, and what looked at the run meanwhile, if anything did."""
    distributed.share_out(method)
    if isinstance(method, FitMethod):
        begin = time.monotonic()
        history = method.fit({name: images.all_of(name) for name in images.splits}, config["seed"])
        seconds, seen = time.monotonic() - begin, sum(images.info.counts.values())
        if options.tracker:
            EventFile(options.tracker, history)
        return Position(history=history, images_seen=seen, seconds=seconds, attempts=[attempt]), None
    if images.device.type == "cpu":
        keep_memory()  # of equal steps; those of a fit differ, and what one leaves does not serve the next
    method.to(memory_format=torch.channels_last)
    trainer = Trainer(config, method, images, state, SaveEvery(options.save_seconds, options.save_batches), speed)
    trainer.resume()
    trainer.begin(attempt)
    tracked = EventFile(options.tracker, trainer.history) if options.tracker and distributed.is_first() else None
    trainer.run(options.first_epochs, tracked)
    return trainer.at, trainer.observer if trainer.observer.looks else None


@contextlib.contextmanager
def _device(options: Options) -> Iterator[torch.device]:
    """Yield the device to train on: a free GPU slot, also of the devices that a scheduler gave, or the CPU."""
    torch.set_num_threads(options.threads)
    devices = [] if options.device == "cpu" else visible_devices()
    if options.device == "cuda" and not devices:
        raise UserError("--device cuda: torch sees no CUDA device here")
    if not devices:
        yield torch.device("cpu")
    else:
        with gpu_slot(devices, options.gpu_share) as index:
            torch.cuda.set_device(index)
            yield torch.device("cuda", index)


def _announce(config: dict, device: torch.device) -> None:
    if not distributed.is_first():
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    others = f", {distributed.processes()} processes" if distributed.processes() > 1 else ""
    print(
        f"train {title(config)}: run {config['id']} on {where}, {torch.get_num_threads()} thread(s){others}",
        file=sys.stderr,
        flush=True,
    )


def title(config: dict) -> str:
    """Return what a message calls a run."""
    return f"{config['method']} ({config['variant']}) on {config['dataset']}, seed {config['seed']}"


def _set_numerics(determinism: str, precision: str) -> None:
    """Set how exact a GPU computes.

    Parameters
    ----------
    determinism
        `fast` (cuDNN may tune its kernels), `seeded` (no tuning), `strict` (deterministic kernels or an error).
    precision
        Only `tf32` lets products in float32 round their inputs; what `bfloat16` leaves in float32, above all the
        losses, is meant as it says.
    """
    rounded = precision == "tf32"
    torch.backends.cudnn.benchmark = determinism == "fast"
    if torch.are_deterministic_algorithms_enabled() != (determinism == "strict"):  # to call it imports torch's compiler
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


@dataclass
class Options:
    """How to run, as opposed to what.

    None of it is part of the run's id. `device`, `threads`, `compile` and `cuda_graph` can change a result in its last
    bits, because sums are then taken in another order; ``run.json`` has them. The rest changes nothing.
    """

    device: str = "auto"
    gpu_share: int = 1
    images: str = "auto"
    compile: bool = False
    cuda_graph: bool = False
    threads: int = 1
    save_seconds: float = 300.0
    save_batches: int = 0
    wait: float = 0.0
    first_epochs: int = 0
    tracker: Path | None = None


def read_config(source: str) -> dict:
    """Return the config of the run to train, with its id, its keys in one fixed order.

    Parameters
    ----------
    source
        A file, or ``-`` for standard input.

    Raises
    ------
    UserError
        If it is not JSON, lacks a key, has an id that is not the one of its content, or none and a mistake.
    """
    name = "standard input" if source == "-" else source
    config = _stdin_json() if source == "-" else read_json(source)
    missing = [key for key in IDENTITY_KEYS if not isinstance(config, dict) or key not in config]
    if missing:
        raise UserError(f"{name}: not the config of a run, it has no {', '.join(missing)}")
    if "id" not in config:
        _check_new(config, name)
    found = run_id(config)
    if config.get("id", found) != found:
        raise UserError(
            f"{name}: its content hashes to {found}, it says {config['id']}; remove 'id' to make it a new run"
        )
    kept = {key: config[key] for key in IDENTITY_KEYS}
    return json.loads(canonical_json({"id": found, "variant": config.get("variant", "full"), **kept}))


def _check_new(config: dict, where: str) -> None:
    """Refuse mistakes in a config that no plan has made; a plan checks its own."""
    if config["determinism"] not in (levels := ("fast", "seeded", "strict")):
        raise UserError(f"{where}: determinism: {config['determinism']!r} is none of {', '.join(levels)}")
    seed = config["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"{where}: seed: {seed!r} is no whole number from 0 on")
    schemas = record.CHECKOUT / "workflow" / "schemas"
    try:
        from dica.validation import validate
    except ImportError as error:
        print(f"warning: {where}: its parameters are not checked: {error}", file=sys.stderr)
        return
    if not (schemas / f"{config['method']}.schema.yaml").is_file():
        print(f"warning: {where}: its parameters are not checked: {schemas} has no {config['method']}", file=sys.stderr)
        return
    validate(config["params"], config["method"], f"{where}: params", record.CHECKOUT)


def _stdin_json() -> Any:
    try:
        return parse_json(sys.stdin.read(), "standard input")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: not readable as JSON ({error})") from None


def command_line() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    parser = argparse.ArgumentParser(prog="python -m dica.train", description="Train one run of the archive.")
    parser.add_argument(
        "--config", required=True, help="config.json of a run (an earlier run's will do); - reads stdin"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for config, history, predictions, record")
    parser.add_argument("--models", type=Path, help="folder for the weights (default: --out)")
    parser.add_argument("--state", type=Path, help="folder for checkpoints (default: OUT.state)")
    parser.add_argument("--labels", type=Path, help="for a supervised method (default: DATA/../../labels/NAME.npz)")
    parser.add_argument("--source", type=Path, help="folder of the run that this one builds on")
    parser.add_argument("--source-models", type=Path, help="folder of that run's weights (default: --source)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--gpu-share", type=int, default=1, help="runs that may share one GPU")
    parser.add_argument("--images", choices=PLACES, default="auto", help="where they are: see dica.engine.images")
    parser.add_argument("--compile", action="store_true", help="compile networks and views (GPU, determinism: fast)")
    parser.add_argument("--cuda-graph", action="store_true", help="replay whole steps (GPU, determinism: fast)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-seconds", type=float, default=300.0, help="seconds between checkpoints")
    parser.add_argument("--save-batches", type=int, default=0, help="batches between checkpoints (0: by time only)")
    parser.add_argument("--wait", type=float, default=0.0, help="minutes to wait for another process on this run")
    parser.add_argument("--tracker", type=Path, help="folder for an event file of the history (TensorBoard)")
    parser.add_argument("--first-epochs", type=int, default=0, help="train these alone and write their history alone")
    return parser


def read_inputs(given: argparse.Namespace) -> Inputs:
    """Return what the command line says of the run's inputs."""
    labels = given.labels or labels_of_prepared(given.data)
    source = RunFolders(given.source, given.source_models or given.source) if given.source else None
    return Inputs(given.data, labels, source)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    print_anywhere()
    given = command_line().parse_args(arguments)
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    try:
        # SIGTERM stops a run as Ctrl-C does, wherever it is; the loop takes over both to save its state first.
        with on_signals(signal.default_int_handler, signal.SIGTERM), distributed.group():
            # Only one process can read standard input.
            config = distributed.from_first(read_config(given.config) if distributed.is_first() else None)
            state = given.state or given.out.with_name(given.out.name + ".state")
            train_run(config, read_inputs(given), given.out, given.models or given.out, state, options)
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on from the last saved state", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {explain_os_error(error)}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    if distributed.is_first():
        print(f"done {title(config)}: {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
