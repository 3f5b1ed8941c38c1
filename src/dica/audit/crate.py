"""The deposit described for machines: a Provenance Run RO-Crate (https://w3id.org/ro/wfrun/provenance/0.5).

One CreateAction for each finished run (what trained it, from what, when, with what software, what came out), one for
the workflow that made the tables of them, and the step of the workflow that a run belongs to. Made from run.json alone:
what Snakemake itself remembers of jobs stays on the machine that ran them. No time of building enters, so that it is
the same at every build.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dica.data.paths import labels_record
from dica.files import canonical_json, read_json, sha256_bytes, sha256_file
from dica.plan.planned import load_plan
from dica.runs.files import CONFIG, HISTORY, METRICS, PREDICTIONS, RECORD, TRACE, WEIGHTS, models_of
from dica.runs.read import environment_of
from dica.validation import load_yaml

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # beyond those of RO-Crate 1.1
LICENCE = "https://spdx.org/licenses/MIT"
AGENT = "#maintainers"
COMPLETED = "http://schema.org/CompletedActionStatus"
NEVER = "1970-01-01T00:00:00+00:00"
STEP, ENGINE = "#step-train", "#engine"
HOMES = {
    "python": "https://www.python.org",
    "cuda": "https://developer.nvidia.com/cuda-toolkit",
    "cudnn": "https://developer.nvidia.com/cudnn",
    "driver": "https://www.nvidia.com/drivers",
}  # of software that is not on PyPI
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
    ".safetensors": "application/octet-stream",
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
    crate.describe_steps()
    described = crate.crate.metadata.generate()
    for entity in described["@graph"]:  # a list of one is written as that one
        entity |= {key: value[0] for key, value in entity.items() if isinstance(value, list) and len(value) == 1}
    return json.dumps(described, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


class _Crate:
    """The crate while it is being filled."""

    def __init__(self, root: Path, results: str, inside: set[str]) -> None:
        from rocrate.rocrate import ROCrate

        self.crate = ROCrate(version="1.1")  # what the profiles are defined for
        self.crate.metadata.extra_terms.update(TERMS)
        self.root, self.results, self.inside = root, results, inside
        planned = load_plan(root / results / "plan.json")["runs"]
        self.runs = [run for run in planned if f"{run['path']}/{RECORD}" in inside]
        self.records = {run["path"]: read_json(root / run["path"] / RECORD) for run in self.runs}
        self.trainers: list[str] = []
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
        home = {"url": citation["repository-code"]} if "repository-code" in citation else {}
        self.context(AGENT, **{"@type": "Organization", "name": maintainers, **home})
        left_out = "Images" if any(name.endswith(f"/{WEIGHTS}") for name in self.inside) else "Weights and images"
        about = {
            "name": citation.get("title", "dica: the deep image clustering archive"),
            "description": (
                f"Every number of five papers on deep image clustering beside {len(self.runs)} runs of this archive: "
                f"parameters, code, predictions, records, tables and figures. {left_out} are not included."
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
        """Describe the Snakefile, and the engine that reads it."""
        known = {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "The workflow of the archive",
            "license": {"@id": LICENCE},
            "creator": {"@id": AGENT},
            "version": self.crate.root_dataset["version"],
            "url": {"@id": "README.md"},
            "encodingFormat": "text/plain",
            "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
        }
        self.workflow = self.crate.add_workflow(dest_path="Snakefile", main=True, lang="snakemake", properties=known)
        lock = (self.root / "requirements.lock").read_text(encoding="utf-8")
        version = next((line[11:] for line in lock.splitlines() if line.startswith("snakemake==")), "unknown")
        self.software(ENGINE, "Snakemake", version, "https://snakemake.readthedocs.io")

    def software(self, name: str, title: str, version: str, url: Any, **more: Any) -> dict[str, str]:
        """Describe a program once; return the reference to it."""
        if self.crate.get(name) is None:
            about = {"@type": "SoftwareApplication", "name": title, "softwareVersion": version, "url": url}
            self.context(name, **about, **more)
        return {"@id": name}

    def trainer(self, record: dict[str, Any]) -> dict[str, str]:
        """Describe the code and the software that made a run: one program for all runs that share both."""
        commit, dirty = record.get("commit") or "unknown", record.get("dirty_sha256")
        state = commit + (f" with uncommitted changes {dirty}" if dirty else "")
        versions, digests = record["versions"], environment_of(record)
        needs = [
            self.software(home, name, version, home)
            for name, version in sorted(versions.items())
            if (home := f"{HOMES[name]}#{version}" if name in HOMES else f"https://pypi.org/project/{name}#{version}")
        ]
        name = f"#train-{commit[:12]}-{sha256_bytes(canonical_json([state, versions, digests]).encode())[:12]}"
        if name not in self.trainers:
            self.trainers.append(name)
        page = {"@id": "docs/engine.md"} if self.file("docs/engine.md") else {"@id": "README.md"}
        text = "; ".join(f"{key} {digest}" for key, digest in sorted(digests.items()))
        more = {"softwareRequirements": needs, **({"description": text} if text else {})}
        return self.software(name, "dica.train: trains one run", state, page, **more)

    def describe_run(self, run: dict[str, Any]) -> None:
        """Describe how one run came to be."""
        folder, record = run["path"], self.records[run["path"]]
        took = [f"{folder}/{CONFIG}", f"params/{run['method']}.yaml", labels_record(run["dataset"])]
        made = [f"{folder}/{name}" for name in (HISTORY, PREDICTIONS, TRACE, METRICS, RECORD)]
        made.append((models_of(Path(folder)) / WEIGHTS).as_posix())
        title = f"{run['method']} ({run['variant']}) on {run['dataset']}, seed {run['seed']}"
        self._action(
            f"#run-{run['id']}", title, _circumstances(record), self.trainer(record), took, made,
            record["started"], record["finished"],
        )  # fmt: skip

    def describe_whole(self) -> None:
        """Describe the workflow's own run, from the parameters to the tables."""
        tables = sorted(name for name in self.inside if name.startswith(f"{self.results}/tables/"))
        took = [f"{self.results}/plan.json", *(f"{run['path']}/{CONFIG}" for run in self.runs)]
        made = [*(f"{run['path']}/{PREDICTIONS}" for run in self.runs), *tables]
        text = "From the first start of a run to the end of the last; tables are made of them in seconds."
        title = "Runs, scores and tables of the archive"
        self._action("#workflow-run", title, text, {"@id": "Snakefile"}, took, made, self.begun, self.ended)

    def describe_steps(self) -> None:
        """Say which action belongs to which step of the workflow, and that Snakemake started it."""
        self.workflow["hasPart"] = trainers = [{"@id": name} for name in self.trainers]
        self.workflow["step"] = {"@id": STEP}
        self.context(STEP, **{"@type": "HowToStep", "name": "Train a run", "position": "1", "workExample": trainers})
        for run in self.runs:
            known = {"name": f"Start of run {run['id']}", "instrument": {"@id": STEP}}
            done: dict[str, Any] = {"object": {"@id": f"#run-{run['id']}"}, "actionStatus": COMPLETED}
            self.context(f"#control-{run['id']}", **{"@type": "ControlAction", **known, **done})
        known = {"name": "What Snakemake started", "agent": {"@id": AGENT}, "instrument": {"@id": ENGINE}}
        started = [{"@id": f"#control-{run['id']}"} for run in self.runs]
        done = {"object": started, "result": {"@id": "#workflow-run"}, "actionStatus": COMPLETED}
        self.context("#organize", **{"@type": "OrganizeAction", **known, **done})

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
                "actionStatus": COMPLETED,
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
