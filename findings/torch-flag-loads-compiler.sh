#!/usr/bin/env bash
# PyTorch 2.13.0: a flag that is set to the value it has already loads the whole compiler. `import torch` leaves
# `torch._dynamo`, `torch._inductor` and sympy out; `torch.use_deterministic_algorithms(False)`, which changes nothing,
# loads all three, hundreds of modules and about as much processor time as `import torch` itself. Any optimiser does so
# too, by its constructor. Whoever starts many short processes without an optimiser asks
# `torch.are_deterministic_algorithms_enabled()` first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
run() {
  OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - "$1" <<'PY'
import sys
import time

started = time.process_time()
import torch

loaded, used = len(sys.modules), time.process_time() - started
compiler = ("torch._dynamo", "torch._inductor", "sympy")
assert not any(name in sys.modules for name in compiler), "the behaviour has changed"
assert not torch.are_deterministic_algorithms_enabled()
if sys.argv[1] == "flag":
    torch.use_deterministic_algorithms(False)
else:
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
more = len(sys.modules) - loaded
print(f"import torch: {loaded} modules, {used:.1f} CPU s; then by the {sys.argv[1]}: {more} more,"
      f" {time.process_time() - started - used:.1f} CPU s")
assert more > 300 and all(name in sys.modules for name in compiler), "the behaviour has changed"
PY
}
run flag >/dev/null  # the first time bytecode is written
run flag
run optimiser
