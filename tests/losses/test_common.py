"""What losses share."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
import torch

from dica import losses
from dica.files import UserError
from dica.losses.common import leading
from dica.losses.crlc import draw_negatives


def divided_by() -> Iterator[tuple[str, str, str]]:
    """Every setting of a loss that must be above 0, by module and function."""
    for module in pkgutil.iter_modules(losses.__path__):
        for name, loss in vars(import_module(f"dica.losses.{module.name}")).items():
            if inspect.isfunction(loss) and loss.__module__.endswith(f".{module.name}") and name[0] != "_":
                for setting in inspect.signature(loss).parameters:
                    if "temperature" in setting or setting in ("epsilon", "sharpen", "iterations", "sinkhorn_iters"):
                        yield module.name, name, setting


def losses_in_full_precision() -> Iterator[tuple[str, Callable]]:
    """Every loss that `full_precision` wraps, by name."""
    for module in pkgutil.iter_modules(losses.__path__):
        for name, loss in vars(import_module(f"dica.losses.{module.name}")).items():
            code = getattr(loss, "__code__", None)
            if code and code.co_qualname.startswith("full_precision.") and loss.__module__.endswith(f".{module.name}"):
                yield name, loss


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_that_are_divided_by_are_above_zero(value: float) -> None:
    found = list(divided_by())
    assert len(found) > 20
    for module, name, setting in found:
        loss = getattr(import_module(f"dica.losses.{module}"), name)
        with pytest.raises(UserError, match=f"{name}: {setting} is {value}; choose a finite number above 0"):
            loss(**{setting: value})


def test_an_empty_batch_is_one_clear_error_and_not_a_number_that_is_none() -> None:
    found = list(losses_in_full_precision())
    assert {"information_loss", "scan_loss", "self_label_loss", "pica_loss", "drc_loss"} <= {name for name, _ in found}
    for name, loss in found:
        tensors = {
            setting: torch.zeros(0, 3)
            for setting, said in inspect.signature(loss).parameters.items()
            if said.default is inspect.Parameter.empty and said.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        }
        with pytest.raises(UserError, match=rf"{name}: the batch is empty \(shape \(0, 3\)\)"):
            loss(**tensors or {"views": torch.zeros(0, 3)})


def test_a_memory_bank_of_one_row_has_no_negatives() -> None:
    with pytest.raises(UserError, match="the memory bank has 1 row, and an image needs another one"):
        draw_negatives(torch.tensor([0]), 1, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_leading_is_a_stable_sort(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(200, 30, generator=draw).mul(3).round().div(4).to(dtype)  # many ties, both signs, both zeros
    values[0] = torch.inf
    values[1, ::2] = -torch.inf
    values[2] = torch.tensor([0.0, -0.0] * 15)
    expected = values.sort(dim=1, descending=True, stable=True).indices
    for count in (1, 5, 30):
        assert torch.equal(leading(values, count), expected[:, :count])
