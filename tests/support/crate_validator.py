"""Run roc-validator on a folder without network; for the Python of the validators' environment.

python crate_validator.py CACHE FOLDER PROFILE

The validator asks for the vocabulary of RO-Crate 1.1 by its address and keeps what it gets in a cache of HTTP answers.
That vocabulary lies in the package rocrate 0.13: it is put into the cache, and the validator is told to be offline.
Prints JSON: the checks that failed, by severity, each with its first message.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import requests
import requests_cache
import rocrate
from rocrate_validator import services

ADDRESS = "https://w3id.org/ro/crate/1.1/context"


def fill(cache: str) -> None:
    """Put the vocabulary where the validator looks for it."""
    data = (Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_bytes()
    if json.loads(data)["@id"] != ADDRESS:
        raise SystemExit(f"rocrate {rocrate.__version__} holds another vocabulary than {ADDRESS}")
    answer = requests_cache.CachedResponse(
        status_code=200, url=ADDRESS, headers={"Content-Type": "application/ld+json"}
    )
    answer._content = data
    session = requests_cache.CachedSession(cache, backend="sqlite", expire_after=-1)
    session.cache.responses[session.cache.create_key(requests.Request("GET", ADDRESS))] = answer
    session.close()


def main() -> None:
    """Validate and print."""
    cache, folder, profile = sys.argv[1:]
    fill(cache)
    settings = services.ValidationSettings(
        rocrate_uri=folder,
        profile_identifier=profile,
        requirement_severity="RECOMMENDED",
        offline=True,
        cache_path=cache,
    )
    found: dict[str, dict[str, str]] = {"required": {}, "recommended": {}}
    for issue in services.validate(settings).get_issues():
        found[issue.severity.name.lower()].setdefault(issue.check.identifier, issue.message or "")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
