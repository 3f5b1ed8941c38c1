"""What a run is called; apart from `dica.plan.plan`, because training has to do without what planning imports."""

from __future__ import annotations

from dica.files import canonical_json, sha256_bytes

IDENTITY_KEYS = ("method", "params", "dataset", "data_id", "seed", "determinism")


def run_id(config: dict) -> str:
    """Return the 12 hex digits that name a run; `config` needs the `IDENTITY_KEYS`, more keys are ignored."""
    return sha256_bytes(canonical_json({key: config[key] for key in IDENTITY_KEYS}).encode())[:12]
