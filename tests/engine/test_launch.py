"""How runs are started: devices and shares that the scheduler counts, and the command line."""

from __future__ import annotations

import pytest

from dica.engine.launch import command, gpu_request
from dica.files import UserError


def method(speed: dict | None = None, **resources: int) -> dict:
    body = {"method": "m", "resources": {"gpu": 1, "mem_mb": 1, "runtime_min": 1, **resources}}
    return body if speed is None else {**body, "speed": speed}


def test_whole_devices_and_shares_are_counted_in_one_unit() -> None:
    assert gpu_request(method(gpu=0), remote=False) == {"gpu": 0, "gpu_twelfths": 0}
    assert gpu_request(method(gpu=2), remote=False) == {"gpu": 2, "gpu_twelfths": 24}
    assert gpu_request(method(gpu_share=4), remote=False) == {"gpu": 0, "gpu_twelfths": 3}


def test_a_cluster_gives_whole_devices() -> None:
    assert gpu_request(method(gpu_share=4), remote=True) == {"gpu": 1, "gpu_twelfths": 12}


def test_a_share_of_several_devices_is_refused() -> None:
    with pytest.raises(UserError, match=r"params/m\.yaml: resources: gpu_share: 2 needs gpu: 1, not 2"):
        gpu_request(method(gpu=2, gpu_share=2), remote=False)


def test_the_command_has_the_speed_options_in_fast_only() -> None:
    quick = method({"compile": True, "cuda_graph": False}, gpu_share=4)
    assert command(quick, "seeded") == "python -m dica.train --gpu-share 4"
    assert command(quick, "fast") == "python -m dica.train --gpu-share 4 --compile"
    assert command(method({"cuda_graph": True}), "fast") == "python -m dica.train --cuda-graph"
    assert command(method(), "fast") == "python -m dica.train"


def test_a_method_that_asks_for_no_gpu_takes_none() -> None:
    assert command(method(gpu=0), "seeded") == "python -m dica.train --device cpu"


def test_several_gpus_are_several_processes() -> None:
    start = "python -m dica.torchrun --standalone --nproc-per-node 4 -m dica.train"
    assert command(method(gpu=4), "strict") == start
