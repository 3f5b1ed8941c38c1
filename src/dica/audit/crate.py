"""The deposit described for machines: a Workflow Run RO-Crate (https://w3id.org/ro/wfrun/workflow/0.5).

One CreateAction for each finished run (what trained it, from what, when, on what, what came out) and one for the
workflow that made the tables of them. Made from run.json alone; no time of building enters, so that it is the same
at every build.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dica.data.paths import labels_record
from dica.files import read_json, sha256_file
from dica.plan.planned import load_plan
from dica.runs.files import CONFIG, HISTORY, METRICS, PREDICTIONS, RECORD, TRACE
from dica.validation import load_yaml

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
LICENCE = "https://spdx.org/licenses/MIT"
AGENT = "#maintainers"
NEVER = "1970-01-01T00:00:00+00:00"
SNAKEMAKE = {
    "@id": "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
    "@type": "ComputerLanguage",
    "name": "Snakemake",
    "alternateName": "SMK",
    "identifier": {"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
    "url": {"@id": "https://snakemake.readthedocs.io"},
}
TOP_FILES = {
    "README.md": "What the archive is and how to use it",
    "LICENSE": "The licence",
    "CITATION.cff": "How to cite the archive",
    "requirements.lock": "Exact versions of all software",
    "manifest-sha256.txt": "SHA-256 of every file",
}
TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".npz": "application/zip",
    ".md": "text/markdown",
    ".html": "text/html",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".py": "text/x-python",
}


def metadata(root: Path, results: str, names: Sequence[str]) -> str:
    """Return the text of ``ro-crate-metadata.json`` for a deposit of these files.

    Parameters
    ----------
    root, results
        Project root and results root relative to it.
    names
        Paths of the deposit's files, relative to the root; only files among them are described.
    """
    crate = _Crate(root, results, set(names))
    crate.describe_root()
    crate.describe_workflow()
    for run in crate.runs:
        crate.describe_run(run)
    crate.describe_whole()
    return json.dumps(crate.crate.metadata.generate(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


class _Crate:
    """The crate while it is being filled."""

    def __init__(self, root: Path, results: str, inside: set[str]) -> None:
        from rocrate.rocrate import ROCrate

        self.crate = ROCrate(version="1.1")  # what the three profiles are defined for
        self.root, self.results, self.inside = root, results, inside
        planned = load_plan(root / results / "plan.json")["runs"]
        self.runs = [run for run in planned if f"{run['path']}/{RECORD}" in inside]
        self.records = {run["path"]: read_json(root / run["path"] / RECORD) for run in self.runs}
        self.begun = min((record["started"] for record in self.records.values()), default=NEVER)
        self.ended = max((record["finished"] for record in self.records.values()), default=NEVER)

    def context(self, name: str, /, **properties: Any) -> Any:
        """Add something that is no file."""
        from rocrate.model import ContextEntity

        return self.crate.add(ContextEntity(self.crate, name, properties=properties))

    def file(self, name: str, /, **properties: Any) -> dict[str, str] | None:
        """Describe a file once; return the reference to it, or None where the deposit does not have it."""
        if name not in self.inside:
            return None
        if self.crate.get(name) is None:
            known = {"name": name, "encodingFormat": TYPES.get(Path(name).suffix, "text/plain")}
            if (self.root / name).is_file():  # all but the manifest, which is made after this
                size, digest = (self.root / name).stat().st_size, sha256_file(self.root / name)
                known |= {"contentSize": str(size), "sha256": digest}
            self.crate.add_file(dest_path=name, properties={**known, **properties})
        return {"@id": name}

    def files(self, names: Sequence[str]) -> list[dict[str, str]]:
        """Return references to those of the files that the deposit has."""
        return [found for name in names if (found := self.file(name))]

    def describe_root(self) -> None:
        """Say what the deposit is, who made it and what conditions hold."""
        citation = load_yaml(self.root / "CITATION.cff", ours=False) if "CITATION.cff" in self.inside else {}
        for profile, (name, version) in PROFILES.items():
            self.context(profile, **{"@type": "CreativeWork", "name": name, "version": version})
        self.context(LICENCE, **{"@type": "CreativeWork", "name": "MIT Licence", "identifier": LICENCE})
        maintainers = citation.get("authors", [{}])[0].get("name", "The maintainers")
        self.context(AGENT, **{"@type": "Organization", "name": maintainers})
        about = {
            "name": citation.get("title", "dica: the deep image clustering archive"),
            "description": (
                f"Every number of five papers on deep image clustering beside {len(self.runs)} runs of this archive: "
                "parameters, code, predictions, records, tables and figures. Weights and images are not included."
            ),
            "datePublished": self.ended,  # of the newest result: a date of building would change the bytes
            "license": {"@id": LICENCE},
            "author": {"@id": AGENT},
            "publisher": {"@id": AGENT},
            "conformsTo": [{"@id": profile} for profile in PROFILES],
            "version": str(citation.get("version", "0")),
            "mentions": [*({"@id": f"#run-{run['id']}"} for run in self.runs), {"@id": "#workflow-run"}],
        }
        for key, value in about.items():
            self.crate.root_dataset[key] = value
        for name, title in TOP_FILES.items():
            self.file(name, name=title, **({"about": {"@id": "./"}} if name == "README.md" else {}))

    def describe_workflow(self) -> None:
        """Describe the Snakefile, and the program that trains one run."""
        language = self.context(SNAKEMAKE["@id"], **{key: value for key, value in SNAKEMAKE.items() if key != "@id"})
        version = self.crate.root_dataset["version"]
        known = {
            "name": "The workflow of the archive",
            "license": {"@id": LICENCE},
            "creator": {"@id": AGENT},
            "version": version,
            "encodingFormat": "text/plain",
            "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
        }
        workflow = self.crate.add_workflow(dest_path="Snakefile", main=True, properties=known)
        workflow["programmingLanguage"] = language
        types = {"@type": ["File", "SoftwareSourceCode"], "name": "dica.train: trains one run", "version": version}
        self.trainer = self.file("src/dica/train.py", **types) or {"@id": "Snakefile"}

    def describe_run(self, run: dict[str, Any]) -> None:
        """Describe how one run came to be."""
        folder, record = run["path"], self.records[run["path"]]
        took = [f"{folder}/{CONFIG}", f"params/{run['method']}.yaml", labels_record(run["dataset"])]
        made = [f"{folder}/{name}" for name in (HISTORY, PREDICTIONS, TRACE, METRICS, RECORD)]
        title = f"{run['method']} ({run['variant']}) on {run['dataset']}, seed {run['seed']}"
        self._action(
            f"#run-{run['id']}", title, _circumstances(record), self.trainer, took, made,
            record["started"], record["finished"],
        )  # fmt: skip

    def describe_whole(self) -> None:
        """Describe the workflow's own run, from the predictions to the tables."""
        tables = sorted(name for name in self.inside if name.startswith(f"{self.results}/tables/"))
        took = [f"{self.results}/plan.json", *(f"{run['path']}/{PREDICTIONS}" for run in self.runs)]
        text = "From the first start of a run to the end of the last; tables are made of them in seconds."
        title = "Runs, scores and tables of the archive"
        self._action("#workflow-run", title, text, {"@id": "Snakefile"}, took, tables, self.begun, self.ended)

    def _action(
        self,
        name: str,
        title: str,
        text: str,
        instrument: dict,
        took: list[str],
        made: list[str],
        begun: str,
        ended: str,
    ) -> None:
        self.context(
            name,
            **{
                "@type": "CreateAction",
                "name": title,
                "description": text,
                "instrument": instrument,
                "agent": {"@id": AGENT},
                "object": self.files(took),
                "result": self.files(made),
                "startTime": begun,
                "endTime": ended,
                "actionStatus": "http://schema.org/CompletedActionStatus",
            },
        )


def _circumstances(record: dict[str, Any]) -> str:
    """Return with what code, on what device and with what software a run was made."""
    device, versions = record["device"], record["versions"]
    software = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
    dirty = f" with uncommitted changes {record['dirty_sha256'][:12]}" if record.get("dirty_sha256") else ""
    return (
        f"Commit {record.get('commit') or 'unknown'}{dirty}; {device.get('type')} {device.get('name')}, "
        f"{device.get('threads', 1)} thread(s); {software}; {record['seconds']} s; "
        f"resumed {record.get('resumed', 0)} time(s)."
    )
