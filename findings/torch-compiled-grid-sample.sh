#!/usr/bin/env bash
# PyTorch 2.13.0 on a CPU: `torch.compile` gives other numbers for a sampled image less its mean. `F.grid_sample` of
# images with one channel, and after it anything that reduces over channel, height and width and meets the sampled
# image again (less its mean, less its least, clamped to its range), is wrong in most pixels, by as much as the images'
# range, without a word. The sampled image alone, its mean alone, and the same with three channels are right to the last
# digits. So views that are warped and then shifted within their range, as Keras does it, have to be compared with what
# eager execution makes of them before a compiled function is believed.
# Needs a compiler for C++ (g++).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat >"$folder/sampled.py" <<'PY'
import torch
from torch.nn import functional as F


def sampled(images, grid):
    return F.grid_sample(images, grid, align_corners=False)


def mean(images, grid):
    return sampled(images, grid).mean((1, 2, 3))


def less_mean(images, grid):
    found = sampled(images, grid)
    return found - found.mean((1, 2, 3), keepdim=True)


def less_least(images, grid):
    found = sampled(images, grid)
    return found - found.amin((1, 2, 3), keepdim=True)


def difference(function, channels):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(20, channels, 16, 16, generator=draw)
    grid = 2 * torch.rand(20, 16, 16, 2, generator=draw) - 1
    torch._dynamo.reset()
    eager, compiled = function(images, grid), torch.compile(function, dynamic=False)(images, grid)
    other = (eager - compiled).abs()
    share = (other > 1e-4).float().mean()
    print(f"{function.__name__}, {channels} channel(s): by up to {other.max():.1e}, above 1e-4 in {share:.0%}")
    return other.max().item()


right = [difference(sampled, 1), difference(mean, 1), difference(less_mean, 3), difference(less_least, 3)]
wrong = [difference(less_mean, 1), difference(less_least, 1)]
assert max(right) < 1e-5 and min(wrong) > 0.1, "the behaviour has changed"
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/sampled.py" 2>/dev/null
