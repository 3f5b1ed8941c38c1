"""The methods of the archive, one file each, which names its class `METHOD`; `build` finds them by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dica.files import UserError

if TYPE_CHECKING:
    from dica.data.splits import DataInfo
    from dica.methods.base import Method


def build(name: str, params: dict, data: DataInfo) -> Method:
    """Return the method `name` (``drc``, ``imc-swav``, …) with freshly initialised networks.

    Raises
    ------
    UserError
        If there is no module for it.
    """
    module_name = f"dica.methods.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise UserError(f"no method {name!r}: {module_name.replace('.', '/')}.py does not exist") from None
    return module.METHOD.of(params)(params, data)
