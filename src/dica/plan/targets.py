"""What a cost can be asked of by name: known at once, where the plan takes a while."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dica.files import UserError
from dica.plan.artefacts import load_artefacts, needs
from dica.plan.parameters import layered, load_method, merge
from dica.plan.plan import OWN_RUNS
from dica.validation import hint


def name_of(words: Sequence[str]) -> str:
    """Return a target as plans write it: `drc/table-1` is `drc table-1`."""
    return " ".join(words).replace("/", " ")


def no_target(name: str, addresses: Iterable[str], methods: Iterable[str]) -> UserError:
    """Return the refusal of a name that is none of `all`, a paper, a method, or the address of an artefact."""
    addresses = sorted(addresses)
    papers = dict.fromkeys(address.split(" ")[0] for address in addresses)
    return UserError(f"no target {name!r}; {hint(name, ['all', *papers, *sorted(methods), *addresses])}")


def require_target(words: Sequence[str], profile: dict[str, Any], root: Path) -> None:
    """Refuse what cannot be a target before a plan is made; whether there is a run of an id, only that knows.

    Raises
    ------
    UserError
        As `dica.plan.estimate.select` does.
    """
    name = name_of(words)
    if (
        name == "all"
        or re.fullmatch(r"[0-9a-f]{12}", name)
        or "/".join(words).startswith(f"{profile['results']}/runs/")
    ):
        return
    wanted = [
        (artefact.address, run, {**profile, "overrides": merge(artefact.overrides, profile["overrides"])})
        for artefact in load_artefacts(root, profile["artefacts"], profile.get("substitute"))
        for run in {need[:3] for need in needs(artefact)}
    ]
    if own := profile.get("runs"):
        wanted += [(OWN_RUNS, (own["method"], "full", own["dataset"]), profile)]
    addresses = {address for address, *_ in wanted}
    if name in addresses | {address.split(" ")[0] for address in addresses}:
        return
    methods = {method for _, run, changed in wanted for method in _methods_of(*run, changed, root)}
    if name.removeprefix("method ") not in methods:
        raise no_target(name, addresses, methods)


def _methods_of(method: str, variant: str, dataset: str, profile: dict[str, Any], root: Path) -> list[str]:
    """Return the methods of a run and of those that it builds on, one below the other."""
    chain: list[tuple[str, str]] = []
    source: dict[str, str] | None = {"method": method, "variant": variant}
    while source and (run := (source["method"], source["variant"])) not in chain:
        chain.append(run)
        source = layered(load_method(run[0], root), run[1], dataset, profile).get("source")
    return [name for name, _ in chain]
