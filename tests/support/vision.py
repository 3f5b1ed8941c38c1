"""The one place that imports torchvision: works with its CUDA wheel beside a CUDA build or a CPU build of torch.

Only tests and benchmarks import it; the package has no need of it.

torchvision's wheel is compiled against the CUDA build of torch. Beside a CPU build its extension cannot be
loaded, the operators `nms` and `qnms` stay unknown, and `import torchvision` fails while it registers fakes for
them. Nothing uses the two operators; declaring their schemas is enough for models and transforms.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_BOX_OPERATORS = ("nms", "qnms")
_declared: list[torch.library.Library] = []  # a schema lives as long as its Library object


def import_torchvision() -> ModuleType:
    """Import and return torchvision, declaring its two box operators first when the extension is missing.

    Raises
    ------
    ImportError, RuntimeError
        torchvision's own error, if the import fails for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported modules would be taken for whole ones
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _BOX_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")


torchvision = import_torchvision()
