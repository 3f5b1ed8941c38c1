"""What devices are stated to compute (``params/devices.yaml``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dica.files import UserError
from dica.plan.counted import Work
from dica.validation import hint, load_yaml, validate

DEVICES = "params/devices.yaml"
OTHER = "CPU"  # of every device that the file does not name


@dataclass(frozen=True)
class Device:
    """A device by the name of its entry.

    Attributes
    ----------
    tflops : rate of products and convolutions by precision, in 10^12 operations a second
    launch_us : microseconds that starting one operation takes
    """

    name: str
    tflops: dict[str, float]
    launch_us: float

    def seconds(self, work: Work, precision: str) -> float:
        """Return how long a run takes: for its arithmetic, or for starting it where that is more."""
        return max(work.flops / (1e12 * self.tflops[precision]), work.launches * self.launch_us / 1e6)


@cache
def load_devices(root: Path) -> dict[str, Any]:
    """Load and check ``params/devices.yaml``."""
    body = load_yaml(root / DEVICES)
    validate(body, "devices", DEVICES, root)
    if (name := body["reference"]) not in body["devices"]:
        raise UserError(f"{DEVICES}: reference: no device {name!r}; {hint(name, body['devices'])}")
    return body


def stated(name: str, root: Path) -> Device:
    """Return the entry for a device as run.json names it: the first whose name is part of it, else that of a CPU."""
    devices = load_devices(root)["devices"]
    found = next((entry for entry in devices if entry.lower() in name.lower()), OTHER)
    return Device(found, **devices[found])


def reference(root: Path) -> Device:
    """Return the device that hours are told of where no other is named."""
    return stated(load_devices(root)["reference"], root)
