"""What losses share."""

from __future__ import annotations

import pytest
import torch

from dica.losses.common import leading


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
