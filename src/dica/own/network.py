"""The network of a trained run: loaded, asked, and written for use elsewhere. What needs no torch is in `apply`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.engine.load import RunFolders, load_trained
from dica.files import UserError
from dica.methods.base import Method

BATCH = 1000  # as a run predicts its own images: equal batches give equal bits
EXAMPLES = 2  # images that a network is traced with; their number stays open


def load(folder: Path, models: Path, run: str, info: DataInfo) -> Method:
    """Return the method of a finished run with its weights, on the CPU and one of its threads."""
    torch.set_num_threads(1)
    return load_trained(RunFolders(folder, models), run, info, torch.device("cpu"))[0]


@torch.no_grad()
def probabilities(method: Method, images: np.ndarray) -> np.ndarray:
    """Return cluster probabilities (n, K) of prepared images (n, H, W, C)."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.cat([method.predict(part).float() for part in pixels.split(BATCH)]).numpy()


class Network(nn.Module):
    """Prepared images to cluster probabilities, as one graph: normalisation and test view are inside."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (n, K) of uint8 images (n, C, H, W)."""
        return self.method.predict(images)


def write_weights(method: Method, out: Path, metadata: dict[str, str]) -> None:
    """Write the weights as .safetensors."""
    save_file({name: value.contiguous().clone() for name, value in method.state_dict().items()}, out, metadata)
    out.chmod(0o644)  # it comes with 0600, which would hide it from colleagues


def write_graph(method: Method, name: str, info: DataInfo, out: Path) -> None:
    """Write the network as .pt2 or .onnx.

    Raises
    ------
    UserError
        If the method, which goes by `name`, does what no graph can hold.
    """
    example = torch.zeros(EXAMPLES, info.channels, info.image_size, info.image_size, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("n", min=1)}}
    network = Network(method).eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if out.suffix == ".pt2":
                torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), out)
            else:
                names = {"input_names": ["images"], "output_names": ["probabilities"]}
                options = {"dynamo": True, "external_data": False, "verbose": False}
                torch.onnx.export(network, (example,), str(out), dynamic_shapes=shapes, **names, **options)
    except Exception as error:  # torch has many errors for what it cannot trace
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{out}: {name} cannot be written as one graph ({reason})") from None
