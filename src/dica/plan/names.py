"""Names of methods, variants and data sets in a declared table or figure: each must be of something that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dica.files import UserError
from dica.plan.parameters import load_datasets, load_method, method_names
from dica.validation import hint

Asked = tuple[str, str, str | None]  # key, method, and its variant where one is named


class Names:
    """The methods and data sets that there are now, against which a paper's declarations are held."""

    def __init__(self, root: Path) -> None:
        self.root, self.methods, self.datasets = root, method_names(root), load_datasets(root)

    def require(self, spec: dict[str, Any], where: str) -> None:
        """Refuse names in a declaration of a table or figure that nothing has.

        Parameters
        ----------
        spec
            The declaration, as its schema has it.
        where
            File and artefact.

        Raises
        ------
        UserError
            For an unknown method, variant or data set; the message has `where`, the row or column, and the nearest
            names.
        """
        for place, column in enumerate(spec.get("datasets", [])):
            label = column.get("label", "") if isinstance(column, dict) else ""
            name = column["dataset"] if isinstance(column, dict) else column
            self._require_dataset(name, f"{where}.datasets.{_called(place, label)}")
        for place, row in enumerate(spec.get("rows", [])):
            at = f"{where}.rows.{_called(place, row['label'])}"
            for key, method, variant in _runs_of(row):
                self._require_run(method, variant, f"{at}: {key}")
            for name in row.get("datasets", []):
                self._require_dataset(name, f"{at}: datasets")
        options = spec.get("options", {})
        for key, method in [("method", options.get("method")), *options.get("methods", {}).items()]:
            if method is not None:
                self._require_run(method, None, f"{where}.options: {key}")

    def _require_run(self, method: str, variant: str | None, where: str) -> None:
        if method not in self.methods:
            raise UserError(f"{where}: unknown method {method!r}; {hint(method, self.methods)}")
        if variant is not None and variant not in (known := load_method(method, self.root)["variants"]):
            raise UserError(f"{where}: unknown variant {variant!r} of {method}; {hint(variant, known)}")

    def _require_dataset(self, name: str, where: str) -> None:
        if name not in self.datasets:
            raise UserError(f"{where}: unknown data set {name!r}; {hint(name, self.datasets)}")


def _called(place: int, label: str) -> str:
    return f"{place} ({label})" if label else str(place)


def _runs_of(row: dict[str, Any]) -> Iterator[Asked]:
    """Yield the runs that a row names, each with its key."""
    if "method" in row:
        yield "method", row["method"], None
        variants = {"variant": row["variant"]} if "variant" in row else {}
        variants |= {f"variants.{setting}": variant for setting, variant in row.get("variants", {}).items()}
        yield from ((key, row["method"], variant) for key, variant in variants.items())
    others = {f"runs.{metric}": run for metric, run in row.get("runs", {}).items()}
    others |= {"stand_in": row["stand_in"]} if "stand_in" in row else {}
    yield from ((key, run["method"], run.get("variant")) for key, run in others.items())
