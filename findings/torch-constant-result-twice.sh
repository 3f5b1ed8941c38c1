#!/usr/bin/env bash
# PyTorch 2.13.0: a function marked with `torch.compiler.assume_constant_result` may be called only once in a compiled
# function. Its doc string promises that the result is stored as a constant; both results of two calls with other
# arguments are, but under one name (`ConstantSource` of the function's name), and the compilation stops with
# "AssertionError: source ... already in seen_sources". One call compiles, and the `eager` backend takes both: it is
# what comes before the inductor and `aot_eager` backends that refuses. Small constants that several steps of a compiled
# function share are better filled inside it (`torch.full`), which costs neither a copy nor a name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat >"$folder/constants.py" <<'PY'
import torch


@torch.compiler.assume_constant_result
def constant(values):
    return torch.tensor(values)


def once(x):
    return x * constant((1.0, 2.0))


def twice(x):
    return x * constant((1.0, 2.0)) + constant((3.0, 4.0))


def compiled(function, backend):
    torch._dynamo.reset()
    try:
        return torch.compile(function, backend=backend)(torch.ones(2)).tolist()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:140]}"


print("without the compiler:", twice(torch.ones(2)).tolist())
backends = ("eager", "aot_eager")
found = {(name.__name__, backend): compiled(name, backend) for name in (once, twice) for backend in backends}
for (name, backend), result in found.items():
    print(f"{name}, {backend}: {result}")
assert found["once", "aot_eager"] == [1.0, 2.0] and found["twice", "eager"] == [4.0, 6.0], "the behaviour has changed"
assert "already in seen_sources" in str(found["twice", "aot_eager"]), "the behaviour has changed"
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/constants.py" 2>/dev/null
