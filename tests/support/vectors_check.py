"""Compare a loss or a metric with the cases of tests/vectors/<paper>.json, values and gradients.

Use in a test file::

    from vectors_check import check, cases

    EQUATIONS = {"drc.L_CR": lambda x, o: {"loss": cluster_regularisation(x["p"])}}

    @pytest.mark.parametrize(("case", "dtype"), cases("drc"))
    def test_vectors(case, dtype):
        check(case, EQUATIONS[case.equation], dtype)

A function gets the inputs as tensors (floats in `dtype`, integers as int64) and the options as they stand in the
file. It returns one tensor or number for every key of the case's `expected` but `grad`; the gradient of
`loss` is checked for every input that `expected["grad"]` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

VECTORS = Path(__file__).parents[1] / "vectors"
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Case:
    """One case of a vector file: nested lists as they were read, and the file's tolerances."""

    name: str
    equation: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    expected: dict[str, Any]
    tolerance: dict[str, Any]

    def tensors(self, dtype: str) -> dict[str, Tensor]:
        """Return the inputs as tensors; those with an expected gradient require one."""
        wanted = self.expected.get("grad", {})
        return {k: to_tensor(v, dtype).requires_grad_(k in wanted) for k, v in self.inputs.items()}


def load(paper: str) -> list[Case]:
    """Return every case of tests/vectors/<paper>.json."""
    content = json.loads((VECTORS / f"{paper}.json").read_text())
    return [Case(**case, tolerance=content["tolerance"]) for case in content["cases"]]


def cases(paper: str, *equations: str) -> list[Any]:
    """Return pytest parameters (case, dtype) for a paper: both precisions of each case.

    Parameters
    ----------
    equations
        Only these equations (default: all).
    """
    return [
        pytest.param(case, dtype, id=f"{case.name}-{dtype}")
        for case in load(paper)
        if not equations or case.equation in equations
        for dtype in DTYPES
    ]


def to_tensor(value: Any, dtype: str) -> Tensor:
    """Return nested lists as a tensor: int64 (or bool) if every number is one, else `dtype`."""
    array = np.asarray(value)
    return torch.tensor(array) if array.dtype.kind in "ib" else torch.tensor(array, dtype=DTYPES[dtype])


def check(
    case: Case,
    function: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Any]],
    dtype: str = "float64",
    skip: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Assert that `function` gives the expected values and gradients of `case` within the file's tolerance.

    Parameters
    ----------
    function
        Maps (inputs, options) to a dict with the keys of `expected`.
    skip
        Keys of `expected` that the caller compares on its own (such as sets of admissible partners).

    Returns
    -------
    dict
        What `function` returned.
    """
    inputs = case.tensors(dtype)
    outputs = function(inputs, case.options)
    tolerance = case.tolerance[dtype]
    for key, expected in case.expected.items():
        if key != "grad" and key not in skip:
            assert key in outputs, f"{case.name}: no {key!r} among {sorted(outputs)}"
            _assert_close(f"{case.name}: {key}", outputs[key], expected, tolerance["value"])
    gradients = case.expected.get("grad", {})
    if gradients:
        if outputs["loss"].requires_grad:
            outputs["loss"].backward()
        for key, expected in gradients.items():
            found = inputs[key].grad
            found = torch.zeros_like(inputs[key]) if found is None else found
            _assert_close(f"{case.name}: gradient of {key}", found, expected, tolerance["grad"])
    return outputs


def _assert_close(what: str, found: Any, expected: Any, tolerance: dict[str, float]) -> None:
    found = found.detach().cpu().numpy() if torch.is_tensor(found) else np.asarray(found)
    np.testing.assert_allclose(found, np.asarray(expected), err_msg=what, strict=False, **tolerance)
    assert found.shape == np.shape(expected), f"{what}: shape {found.shape}, not {np.shape(expected)}"
