"""Exact resume: a run killed at any step ends in the same bytes as one that was left alone."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch

from dica.engine.checkpoints import MAGIC, NEWEST, PREVIOUS, HeldError, StateFolder
from dica.engine.loop import Interrupted, Position, SaveEvery
from dica.files import INTERRUPTED, UserError, read_json, sha256_file
from dica.runs.record import history_csv
from kills import command, run_with_kills, start
from tiny import families, gradient_methods, make_prepared, make_trainer, tiny_config


@pytest.mark.parametrize("method", gradient_methods())
def test_killed_and_resumed_equals_undisturbed(method: str, tmp_path: Path) -> None:
    """Of the variants that keep the same state the first one; `make faults` kills them all."""
    data, kept = make_prepared(tmp_path / "data"), set()
    for variant in dict.fromkeys(families(method).values()):
        settings = tiny_config(method, variant)
        whole = make_trainer(settings, data, tmp_path / variant / "whole")
        state = {name: value.shape for name, value in whole.method.state_dict().items()}
        if (keeps := f"{state} {whole.method.phases(0)}") in kept:
            continue
        kept.add(keeps)
        whole.run()
        draw = random.Random(f"{method} {variant}")
        kills = sorted(draw.sample(range(2, 12), 3))
        if len(whole.history) == 1:  # training ended by itself, after three batches
            kills = [2, 3]
        parts = run_with_kills(settings, data, tmp_path / variant / "parts", kills, draw.choice([1, 2, 3]))
        assert not kills or kills[0] > 6, f"{variant}: the kills really happened"
        assert history_csv(parts.history) == history_csv(whole.history), variant
        expected, found = whole.method.state_dict(), parts.method.state_dict()
        different = [name for name in expected if not torch.equal(expected[name], found[name])]
        assert not different, variant


def test_resume_is_exact_where_each_step_has_a_second_batch(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 20, "test": 15, "unlabeled": 30})
    settings = tiny_config("crlc")
    whole = make_trainer(settings, data, tmp_path / "whole")
    assert whole.method.phases(0)[0].second == ("train", "test", "unlabeled")
    whole.run()
    parts = run_with_kills(settings, data, tmp_path / "parts", [3, 7], save_batches=2)
    assert history_csv(parts.history) == history_csv(whole.history)


@pytest.mark.parametrize("method", ["drc", "imc-swav"])
def test_kill_9_at_random_moments_leaves_the_same_files(method: str, tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 160})
    settings = tiny_config(method, epochs=12)
    done = subprocess.run(command(settings, tmp_path, "whole", data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    arguments = command(settings, tmp_path, "killed", data, "--save-batches", "7")
    killed = 0
    state = tmp_path / "killed.state"
    while killed < 2:
        process = start(arguments)
        before = (state / NEWEST).stat().st_mtime_ns if (state / NEWEST).is_file() else 0
        while process.poll() is None and (
            not (state / NEWEST).is_file() or (state / NEWEST).stat().st_mtime_ns == before
        ):
            time.sleep(0.01)  # until this attempt has got somewhere
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors or "finished before it could be killed"
        killed += 1
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("predictions.npz", "weights.safetensors", "history.csv", "config.json"):
        assert sha256_file(tmp_path / "killed" / name) == sha256_file(tmp_path / "whole" / name), name
    record = read_json(tmp_path / "killed/run.json")
    assert record["resumed"] == killed
    assert len(record["attempts"]) == killed + 1
    assert not (state / NEWEST).exists(), "a finished run leaves no checkpoint behind"


def test_sigterm_saves_and_says_try_again(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 400})
    settings = tiny_config("drc", epochs=2000)
    process = start(command(settings, tmp_path, "out", data, "--save-batches", "5"))
    while not (tmp_path / "out.state" / NEWEST).is_file() and process.poll() is None:
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED, errors
    assert "run the same command" in errors
    assert not (tmp_path / "out" / "run.json").exists()
    trainer = make_trainer(settings, data, tmp_path / "out.state")
    trainer.resume()
    assert trainer.at.step > 0


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def with_digest(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).digest() + payload


def test_a_torn_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path, capsys) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    trainer = make_trainer(settings, data, tmp_path / "state", SaveEvery(seconds=0, batches=2))
    trainer.run()
    trainer.state._lock.close()
    newest = tmp_path / "state" / NEWEST
    content = newest.read_bytes()
    for spoilt in (content[: len(content) // 2], b"", content[:200] + bytes([content[200] ^ 1]) + content[201:]):
        newest.write_bytes(spoilt)
        again = make_trainer(settings, data, tmp_path / "state")
        again.resume()
        again.state._lock.close()
        assert 0 < again.at.step < trainer.at.step
        assert "not used" in capsys.readouterr().err
    (tmp_path / "state" / PREVIOUS).unlink()
    fresh = make_trainer(settings, data, tmp_path / "state")
    fresh.resume()
    assert fresh.at.step == 0, "with no sound checkpoint the run starts over"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    first = StateFolder(tmp_path, "a" * 12)
    first.save({"x": torch.zeros(1)})
    first._lock.close()
    state, warnings = StateFolder(tmp_path, "b" * 12).load(torch.device("cpu"))
    assert state is None
    assert "belongs to run aaaaaaaaaaaa" in warnings[0]


def test_a_checkpoint_with_code_in_it_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / NEWEST).write_bytes(with_digest(saved({"run_id": "a" * 12, "evil": Evil()})))
    state, warnings = StateFolder(tmp_path, "a" * 12).load(torch.device("cpu"))
    assert state is None
    assert "does not load (UnpicklingError: " in warnings[0]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("payload", [b"", b"not a checkpoint", saved([1, 2]), saved({"x": 1}), saved({})[:-40]])
def test_a_checkpoint_of_sound_digest_that_does_not_load_is_kept_aside_and_the_one_before_used(
    payload: bytes, tmp_path: Path
) -> None:
    state = StateFolder(tmp_path, "a" * 12)
    state.save({"x": 1})
    state.save({"x": 2})
    (tmp_path / NEWEST).write_bytes(with_digest(payload))
    found, warnings = state.load(torch.device("cpu"))
    assert found["x"] == 1
    assert "does not load" in warnings[0]
    assert warnings[0].endswith(f"kept as refused-{NEWEST}")
    assert (tmp_path / f"refused-{NEWEST}").read_bytes() == with_digest(payload)
    state.save({"x": 3})
    assert state.load(torch.device("cpu"))[0]["x"] == 3
    (tmp_path / NEWEST).unlink()
    assert state.load(torch.device("cpu"))[0]["x"] == 1, "a save has not put the broken one in the place of the sound"


def _drop(state: dict, key: str) -> None:
    del state[key]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: _drop(state, "looks"), "KeyError: 'looks'"),
        (lambda state: state["at"].update(lap=1), "TypeError"),
        (lambda state: state["at"].update(epoch="1"), "epoch is '1'"),
        (lambda state: state.update(looks=[1]), "TypeError: 'int' object"),
        (lambda state: state["method"].update(more=torch.zeros(2)), "more is (2,), here not there"),
        (lambda state: _drop(state["method"], next(iter(state["method"]))), "is not there, here ("),
        (lambda state: state["optimizer"]["param_groups"].pop(), "its optimiser has other parameters"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_kept_aside_and_the_one_before_used(change, said, tmp_path, capsys) -> None:
    """As after a change of the code: nothing of it is taken over, and the next attempt does not fail on it again."""
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    trainer = make_trainer(settings, data, tmp_path / "state", SaveEvery(seconds=0, batches=2))
    trainer.run()
    state, _ = trainer.state.load(torch.device("cpu"))
    assert state
    change(state)
    trainer.state.save(state)
    trainer.state.close()
    again = make_trainer(settings, data, tmp_path / "state")
    again.resume()
    assert again.at.step > 0
    assert "does not fit this run (" in (told := capsys.readouterr().err)
    assert said in told
    assert (tmp_path / f"state/refused-{NEWEST}").is_file()
    again.state.close()
    (tmp_path / "state" / PREVIOUS).unlink()
    fresh = make_trainer(settings, data, tmp_path / "state")
    fresh.resume()
    assert fresh.at.step == 0


ROW, SUMS = {"epoch": 1}, {"main": {"loss": torch.zeros(())}}


@pytest.mark.parametrize(
    ("noted", "said"),
    [
        ({"epoch": 1, "history": [ROW], "sums": SUMS, "steps": {"main": 1}, "attempts": [{}]}, ""),
        ({"step": -1}, "step is -1"),
        ({"batch": None}, "batch is None"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"history": "abc"}, "history is 'abc'"),
        ({"epoch": 3, "history": [ROW] * 3}, "epoch is 3 of 2, 3 are noted"),
        ({"epoch": 1}, "epoch is 1 of 2, 0 are noted"),
        ({"attempts": [None]}, "of another form"),
        ({"sums": {"main": {"loss": "x"}}, "steps": {"main": 1}}, "of another form"),
        ({"sums": SUMS}, "of another form"),
    ],
)
def test_a_position_that_no_loop_leaves_is_told(noted: dict, said: str) -> None:
    found = Position(**noted).fault(epochs=2)
    assert said in found
    assert bool(said) == bool(found)


def test_a_second_writer_is_told_who_the_first_is_and_may_wait_for_it(tmp_path: Path, capsys) -> None:
    first = StateFolder(tmp_path, "a" * 12)
    with pytest.raises(HeldError, match=r"process \d+ on") as refused:
        StateFolder(tmp_path, "a" * 12)
    assert refused.value.exit_code == INTERRUPTED
    threading.Timer(1.5, first._lock.close).start()
    StateFolder(tmp_path, "a" * 12, wait_s=60)
    assert "waiting for it, at most 1 minutes" in capsys.readouterr().err


def test_a_loss_that_is_not_a_number_stops_the_run_before_it_is_saved(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data")
    settings = tiny_config("drc", lr=1e30)
    trainer = make_trainer(settings, data, tmp_path / "state", SaveEvery(seconds=0, batches=1))
    with pytest.raises(UserError, match=r"not finite by epoch 1, step \d+.*seed 0"):
        trainer.run()
    saved, _ = trainer.state.load(torch.device("cpu"))
    sums = [value for parts in (saved["at"]["sums"] if saved else {}).values() for value in parts.values()]
    assert all(bool(torch.isfinite(value)) for value in sums)


def test_a_signal_after_the_last_batch_still_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("drc"), make_prepared(tmp_path / "data"), tmp_path / "state")
    close = trainer._close_epoch

    def close_and_signal() -> None:
        close()
        if trainer.at.epoch == trainer.params["epochs"]:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._close_epoch = close_and_signal
    with pytest.raises(Interrupted):
        trainer.run()
    assert trainer.state.load(torch.device("cpu"))[0]["at"]["epoch"] == trainer.params["epochs"]


def test_resume_with_other_code_is_said_and_kept(tmp_path: Path, capsys) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    first = {"started": "then", "commit": "a" * 40, "dirty_sha256": None, "device": "cpu", "torch": "2"}
    attempts = [first, first, {**first, "commit": "b" * 40}, {**first, "commit": "b" * 40, "dirty_sha256": "c" * 64}]
    said = []
    for attempt in attempts:
        trainer = make_trainer(settings, data, tmp_path / "state")
        trainer.resume()
        trainer.begin(attempt)
        trainer.save()
        trainer.state._lock.close()
        said.append([line for line in capsys.readouterr().err.splitlines() if "other code" in line])
    assert trainer.at.attempts == attempts
    assert said[:2] == [[], []]
    assert "commit aaaaaaaaaaaa -> bbbbbbbbbbbb" in said[2][0]
    assert "dirty_sha256 None -> cccccccccccc" in said[3][0]


def test_a_run_does_not_go_on_from_another_source(tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    first = {"started": "then", "commit": None, "dirty_sha256": None, "device": "cpu", "torch": "2", "source": "a" * 64}
    trainer = make_trainer(settings, data, tmp_path / "state")
    trainer.begin(first)
    trainer.begin(first)
    with pytest.raises(UserError, match=r"has other weights than when .*; remove .*state to begin again"):
        trainer.begin({**first, "source": "b" * 64})
    assert trainer.at.attempts == [first, first]


@pytest.mark.parametrize(("method", "option"), [("drc", "fused"), ("dccm", "capturable")])
def test_a_resumed_optimiser_computes_as_this_attempt_wants(method: str, option: str, tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, epochs=1)
    first = make_trainer(settings, data, tmp_path / "state", SaveEvery(seconds=0, batches=1))
    first.run()
    first.optimizer.param_groups[0][option] = True  # as on a GPU, or in a graph
    first.save()
    first.state._lock.close()
    again = make_trainer(settings, data, tmp_path / "state")
    wanted = [dict(group, params=None) for group in again.optimizer.param_groups]
    again.resume()
    found = [dict(group, params=None) for group in again.optimizer.param_groups]
    assert found == [{**group, "lr": found[0]["lr"]} for group in wanted]
    assert again.optimizer.state_dict()["state"], "its moments are those of the checkpoint"


def test_a_reader_of_the_lock_does_not_stop_a_run_that_starts(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    reader = open(tmp_path / "lock")  # noqa: SIM115 - closed by the timer
    fcntl.flock(reader, fcntl.LOCK_SH)
    threading.Timer(0.3, reader.close).start()
    StateFolder(tmp_path, "a" * 12)


def test_a_finished_run_leaves_no_half_written_checkpoint(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "a" * 12)
    for _ in range(2):
        state.save({})
    for name in ("checkpoint.next.pt", ".checkpoint.next.pt.x1y2.tmp"):
        (tmp_path / name).touch()
    state.discard_checkpoints()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
