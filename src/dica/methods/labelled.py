"""The few labelled images of a semi-supervised run: drawn by its seed, and recorded; no other label is kept."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from dica.files import UserError


class LabelledImages(nn.Module):
    """Equally many labelled images of each class.

    Parameters
    ----------
    order
        (n,) the train split's positions in the order in which they are taken.
    classes, per_class
        Number of classes, and of images of each.

    Attributes
    ----------
    positions : (m,) their positions in the train split, ascending
    classes : (m,) their labels
    """

    def __init__(self, order: Tensor, classes: int, per_class: int) -> None:
        super().__init__()
        self.order, self.per_class, count = order, per_class, classes * per_class
        self.register_buffer("positions", torch.zeros(count, dtype=torch.long))
        self.register_buffer("classes", torch.zeros(count, dtype=torch.long))

    def choose(self, labels: Tensor) -> None:
        """Take the first images of each class in the drawn order; `labels` (n,) are of the whole train split.

        Raises
        ------
        UserError
            If a class has too few images.
        """
        order = self.order.to(labels.device)
        found = []
        for number in range(len(self.classes) // self.per_class):
            rows = order[labels[order] == number][: self.per_class]
            if len(rows) < self.per_class:
                raise UserError(f"labels_per_class: {self.per_class}, but class {number} has {len(rows)} images")
            found.append(rows)
        chosen = torch.cat(found).sort().values
        self.positions.copy_(chosen)
        self.classes.copy_(labels[chosen])

    def record(self) -> dict:
        """Return positions and classes as lists, for the run's record."""
        return {"labelled": self.positions.tolist(), "classes": self.classes.tolist()}

    def draw(self, size: int, generator: Generator) -> Tensor:
        """Return which of them a step sees, (size,): each equally often, but for the remainder."""
        count = len(self.positions)
        rounds = torch.rand(-(-size // count), count, generator=generator, device=generator.device)
        return rounds.argsort(1).flatten()[:size].to(self.positions.device)
