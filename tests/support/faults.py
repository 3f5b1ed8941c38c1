"""Processes that fight for GPU slots; the long and the short test of them use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SLOTS = """
import fcntl, json, os, random, signal, sys, time
from pathlib import Path
from dica.engine.slots import gpu_slot
folder, count, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
devices, share = ["a", "b", "c", "d"], 2
draw = random.Random(seed)

def hold(number):
    '''Hold a slot for a moment; leave with 9 if `share` others hold the same device.'''
    own = random.Random(number)
    # Opened before the slot's file: when a process dies, its files are closed in this order.
    witnesses = [[open(folder / f"witness-{index}-{place}", "w") for place in range(share)] for index in range(4)]
    time.sleep(own.uniform(0, 0.3))
    with gpu_slot(devices, share, folder, poll_s=0.02) as index:
        mine = next((file for file in witnesses[index] if locked(file)), None)
        if mine is None:
            os._exit(9)
        time.sleep(own.uniform(0.08, 0.25))
        mine.close()
    os._exit(0)

def locked(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False

sys.stderr = open(os.devnull, "w")
children = []
for number in range(count):
    child = os.fork()
    if child == 0:
        hold(number)
    children.append(child)
for child in draw.sample(children, kills):
    time.sleep(draw.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
locks = [open(folder / f"{device}-{place}.lock", "a") for device in devices for place in range(share)]
free = sum(map(locked, locks))
print(json.dumps({"processes": count, "killed": codes.count(-9), "met": codes.count(9), "leaked": 8 - free}))
"""


def slots_under_load(folder: Path, processes: int, kills: int, seed: int) -> dict[str, int]:
    """Let processes fight for two slots on each of four pretended devices, kill some, and count what went wrong.

    Returns
    -------
    dict
        `processes`, `killed`, `met` (a third holder on one device), `leaked` (slots still taken at the end).
    """
    command = [sys.executable, "-c", SLOTS, str(folder), str(processes), str(kills), str(seed)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)
