"""What the workflow asks of the package when it is read: which runs there are, what is on disk, what a rule may make.

Snakemake reads the workflow in its own process (the head), and again in each job that it hands to a cluster. The head
plans and leaves notes in ``results/``; a job writes nothing, and whether it finds its rule does not depend on the disk
or on today's parameters: it takes its run from what a head once planned.
"""

from __future__ import annotations

import fcntl
import shlex
from functools import cached_property
from pathlib import Path
from typing import Any

from dica.data.paths import labels_file, manifest_file
from dica.data.prepared import is_current
from dica.files import UserError, canonical_json, explain_os_error, read_json, sha256_file
from dica.plan.artefacts import Artefact, analyses, analysis_path, load_artefacts
from dica.plan.made import Made, Target, shown_file
from dica.plan.own import own_analyses
from dica.plan.parameters import load_datasets, load_profile
from dica.plan.plan import (
    current_plan,
    id_pattern,
    inputs_of_plan,
    keep_plan,
    methods_of,
    source_folder,
    write_if_changed,
    write_recorded,
)
from dica.plan.planned import has_something
from dica.runs.files import METRICS, PREDICTIONS, RECORD, STAGES, WEIGHTS
from dica.runs.read import read_metrics

ANY_ID = "[0-9a-f]{12}"
AFTER_CELLS = ("statistics", "claims", "consistency")
NONE = "none"  # a constraint that no wildcard meets


def require_plain_start(root: Path, config: object, deployment: object) -> None:
    """Refuse what Snakemake offers and this workflow has no use for, and a folder that it cannot work in.

    Parameters
    ----------
    root
        The project's folder.
    config, deployment
        What ``--config`` and ``--sdm`` were given.
    """
    if set("{}") & set(str(root)):
        raise UserError(
            f"{root}: Snakemake takes what stands in braces for a name to fill in; rename or move the folder"
        )
    if config:
        raise UserError("--config changes nothing here: copy a profile such as params/demo.yaml and give --configfile")
    if deployment:
        raise UserError(
            "--sdm is of no use here: all rules run in the one environment of requirements.lock; make it by "
            "`make install`, `conda env create -f environment.yml` or the Dockerfile, and start snakemake inside "
            "without --sdm"
        )


class Work:
    """A profile's runs, artefacts and data sets, as the rules see them.

    Parameters
    ----------
    root, profile
        Project root and the file of the profile.
    in_job
        Whether this is a job that a head has started.

    Attributes
    ----------
    plan, artefacts
        The plan of the profile and what it shows; in a job all that was ever planned, and nothing.
    runs
        The runs of the plan by id.
    ignored
        What was found under ``results/`` that cannot be read, a line each; it is made anew.

    Raises
    ------
    UserError
        For a mistake in the parameters.
    """

    def __init__(self, root: Path, profile: Path, in_job: bool = False) -> None:
        self.root, self.in_job = root, in_job
        self.profile = load_profile(profile, root, in_job)
        self.results: str = self.profile["results"]
        self.datasets = load_datasets(root)
        self.ignored: list[str] = []
        self.artefacts: list[Artefact] = []
        if in_job:
            self.plan: dict[str, Any] = {"runs": list(self._remembered().values())}
        else:
            self.artefacts = load_artefacts(root, self.profile["artefacts"], self.profile.get("substitute"))
            self._inputs = inputs_of_plan(self.profile, root)
            self.plan = current_plan(self.profile, root, self._inputs)
            self._check_methods()
        self.runs = {run["id"]: run for run in self.plan["runs"]}

    def _check_methods(self) -> None:
        missing = sorted({run["method"] for run in self.plan["runs"]} - set(self.methods))
        if missing:
            raise UserError(
                f"profile {self.profile['name']}: methods: {', '.join(missing)} must be listed, artefacts need them"
            )

    @property
    def methods(self) -> list[str]:
        """The methods whose runs are asked for."""
        return methods_of(self.profile, self.plan)

    @property
    def plan_file(self) -> str:
        """The file of every run that is asked for."""
        return f"{self.results}/plan.json"

    @property
    def changes_file(self) -> str:
        """What is to be made anew because of its content; being newer than all of it, this file brings that about."""
        return f"{self.results}/state/changes.json"

    @property
    def _memory(self) -> Path:
        return self.root / self.results / "state" / "planned.json"

    def shown(self, kind: str) -> list[Artefact]:
        """Return the artefacts of a kind (``table``, ``figure``) that are made."""
        return [artefact for artefact in self.artefacts if artefact.kind == kind and artefact.regenerated]

    def made_files(self, kind: str, as_it_is: bool) -> list[str]:
        """Return a file of each table or figure that is made; `as_it_is` only of those that have something to show."""
        ending = {"table": "md", "figure": "png"}[kind]
        shown = [artefact for artefact in self.shown(kind) if not as_it_is or artefact.address in self._something]
        return [shown_file(self.results, kind, artefact.paper, artefact.name, ending) for artefact in shown]

    @cached_property
    def _something(self) -> set[str]:
        """The addresses of the artefacts that have something to show."""
        shown = (artefact for artefact in self.artefacts if artefact.regenerated)
        return {a.address for a in shown if has_something(a, self.plan, self.root, PREDICTIONS)}

    def run(self, run_id: str) -> dict:
        """Return a planned run.

        Raises
        ------
        UserError
            If the profile has no such run: a mistake in the request, not in the workflow.
        """
        if run_id not in self.runs:
            raise UserError(f"run {run_id} is not in the plan of profile {self.profile['name']} ({self.plan_file})")
        return self.runs[run_id]

    # What is complete is a plain file to Snakemake, made by no rule: no edited rule, lost metadata or new environment
    # can ever retrain a finished run or prepare the same images twice. (The run id answers for the parameters.)

    @cached_property
    def unfinished(self) -> list[str]:
        """The ids of the planned runs that are to be trained: those without a record, which is written last."""
        return [run["id"] for run in self.plan["runs"] if not (self.root / run["path"] / RECORD).is_file()]

    @cached_property
    def out_of_reach(self) -> dict[str, str]:
        """The ids of the unfinished runs that cannot be trained here, each with the finished run's folder it waits for.

        That run's weights are gone: they are not in the repository, and what is finished is not trained again. Without
        a word Snakemake would leave as it is what shows such a run and lies on the disk.
        """
        waiting, found = set(self.unfinished), {}
        for name in self.unfinished:
            below, folder = name, ""
            while below in waiting and (folder := source_folder(self.runs[below], self.results)):
                below = self.runs[below]["params"]["source"]["id"]
            if folder and not (self.root / self._weights(folder)).is_file():
                found[name] = folder
        return found

    @property
    def warnings(self) -> list[str]:
        """What a user should know before anything starts, a line each."""
        lines = [f"ignored: {line}" for line in self.ignored]
        if not self.in_job and self.out_of_reach:
            name, below = next(iter(self.out_of_reach.items()))
            lines.append(
                f"left out: what builds on finished runs whose weights are not here ({len(self.out_of_reach)} of the "
                f"runs, such as {self.runs[name]['path']}, for want of {self._weights(below)}): put them back, or move "
                "the finished run's folder away, so that it is trained again"
            )
        return lines

    @property
    def trainable(self) -> str:
        """Pattern of the ids that may be trained; in a job every id, because its head has decided."""
        return ANY_ID if self.in_job else id_pattern(self.unfinished, sorted(set(self.runs) - set(self.unfinished)))

    @property
    def scorable(self) -> str:
        """Pattern of the ids that may be scored: those without usable scores; in a job of all."""
        if self.in_job:
            return ANY_ID
        mine = [run["id"] for run in self.plan["runs"] if not (self.root / run["path"] / METRICS).is_file()]
        mine += [name for name in self.runs if self.unusable_scores(name)]
        return id_pattern(sorted(set(mine)), sorted(set(self.runs) - set(mine)))

    @cached_property
    def unprepared(self) -> list[str]:
        """The data sets whose arrays are not there as they are declared now; in a job all."""
        return [name for name, entry in self.datasets.items() if self.in_job or not is_current(self.root, entry)]

    @cached_property
    def _analyses(self) -> dict[str, dict]:
        found = [pair for artefact in self.shown("figure") for pair in analyses(self.plan, artefact)]
        found += own_analyses(self.profile, self.plan)
        return {analysis_path(self.results, kind, run["path"]): run for kind, run in found}

    @property
    def analysable(self) -> str:
        """Pattern of the analyses, as KIND/METHOD/DATASET/RUN, that are not there yet; in a job of all."""
        if self.in_job:
            return ".+"
        there = f"{self.results}/analyses/"
        absent = [path for path in self._analyses if not (self.root / path).is_file()]
        return "|".join(path.removeprefix(there).removesuffix(".npz") for path in absent) or NONE

    def analysed(self, analysis: str) -> dict:
        """Return the run that an analysis is of."""
        return self.run(analysis.rsplit("-", 1)[-1])

    def models_folder(self, folder: str) -> str:
        """Return the folder of a run's weights."""
        return f"{self.results}/models/{Path(folder).relative_to(f'{self.results}/runs')}"

    def _weights(self, folder: str) -> str:
        return f"{self.models_folder(folder)}/{WEIGHTS}"

    def own_analyses(self) -> list[str]:
        """Return the analyses of the runs that the profile itself names."""
        return [analysis_path(self.results, kind, run["path"]) for kind, run in own_analyses(self.profile, self.plan)]

    def source_files(self, run_id: str) -> list[str]:
        """Return the record of the run that a run builds on; nothing for most.

        A job needs none: its head has waited for it, and the rule that trains must not be led to train it once more.

        Raises
        ------
        UserError
            If that run, or one further below, is finished and its weights are not here.
        """
        run = self.run(run_id)
        folder = source_folder(run, self.results)
        if self.in_job or not folder:
            return []
        if below := self.out_of_reach.get(run_id):
            raise UserError(
                f"run {run_id} builds on {below}, whose weights are not here: put {self._weights(below)} back, or move"
                " that folder away, so that the run is trained again"
            )
        return [f"{folder}/{RECORD}"]

    def source_options(self, run_id: str) -> str:
        """Return what tells `dica.train` where the run lies that a run builds on."""
        folder = source_folder(self.run(run_id), self.results)
        return shlex.join(["--source", folder, "--source-models", self.models_folder(folder)]) if folder else ""

    def figure_analyses(self, paper: str, name: str, as_it_is: bool) -> list[str]:
        """Return what a figure needs and can have: what is there, or can be made of weights unless `as_it_is`."""
        artefact = next(a for a in self.shown("figure") if (a.paper, a.name) == (paper, name))
        files = []
        for kind, run in analyses(self.plan, artefact):
            path = analysis_path(self.results, kind, run["path"])
            weights = f"{self.models_folder(run['path'])}/{STAGES if kind == 'stages' else WEIGHTS}"
            trains = run["id"] in self.unfinished and run["id"] not in self.out_of_reach
            possible = not as_it_is and (trains or (self.root / weights).is_file())
            if possible or (self.root / path).is_file():
                files.append(path)
        return files

    def labels_or_images(self, dataset: str) -> str:
        """Return the labels, which come with a clone, or what makes them: the prepared data set."""
        labels = labels_file(dataset)
        return labels if (self.root / labels).is_file() else manifest_file(dataset)

    def scores(self, target: Target, as_it_is: bool) -> list[str]:
        """Return the scores of the runs that a target shows and can have; `as_it_is` only of those that are trained.

        A summary has those that `dica.plan.plan.write_recorded` lists, which `dvc repro` brings up to date.
        """
        runs = self._made.runs(target)
        if target[0] == "summary":
            runs = [run for run in runs if run["dataset"] in self.profile["recorded_datasets"]]
        there = [run for run in runs if run["id"] not in self.out_of_reach]
        if as_it_is:
            there = [run for run in there if (self.root / run["path"] / PREDICTIONS).is_file()]
        return [f"{run['path']}/{METRICS}" for run in there]

    @property
    def _targets(self) -> list[Target]:
        """All that is made of the runs, the page last: it shows the others."""
        regenerated = [artefact for kind in ("table", "figure") for artefact in self.shown(kind)]
        shown = [(a.kind, a.paper, a.name) for a in regenerated if a.address in self._something]
        summaries = [("summary", method) for method in self.methods]
        return [
            ("cells",),
            ("statistics",),
            ("claims",),
            ("consistency",),
            *summaries,
            *shown,
            ("rulegraph",),
            ("page",),
        ]

    @cached_property
    def _made(self) -> Made:
        return Made(self.plan, self.root, self.results)

    @cached_property
    def _same(self) -> dict[Target, bool]:
        """Whether each target is what would be made of what is on disk."""
        return {target: self._made.is_current(target) for target in self._targets}

    def is_current(self, target: Target, as_it_is: bool) -> bool:
        """Return whether a target need not be made again because of what is on disk, however new that is.

        Jobs that make something it is made of are Snakemake's to see: but not for the page, whose tables are there
        already, so it is current only when nothing of what it shows will be made; nor for what waits for the cells.
        """
        if self.in_job or not self._same.get(target):  # what has nothing to show yet is not among them
            return False
        waits = len(self.unfinished) > len(self.out_of_reach)
        if target[0] in AFTER_CELLS:
            return as_it_is or not waits
        if target != ("page",):
            return True
        waits = waits or self.analysable != NONE
        shown = (same for (kind, *_), same in self._same.items() if kind != "summary")
        return all(shown) and (as_it_is or not waits)

    def _rescored(self, run_id: str) -> str:
        return f"{self.results}/state/{run_id}/unusable-scores.json"

    def unusable_scores(self, run_id: str) -> list[str]:
        """Return the note that the scores of a run were once found broken; being newer, it has them made again."""
        note = self._rescored(run_id)
        return [note] if (self.root / note).is_file() else []

    def note(self) -> None:
        """Write what the rules and `dvc repro` read of all this, each file only if there is something new.

        Nothing is written while another Snakemake works with the plan: its jobs must not see it change.

        Raises
        ------
        UserError
            If the system refuses a file.
        """
        try:
            if not self.in_job:
                self._note()
        except OSError as error:
            raise UserError(explain_os_error(error)) from None

    def _note(self) -> None:
        folder = self.root / self.results
        # `tables` of dvc.yaml depends on the folder, whether or not anything is in it.
        (folder / "analyses").mkdir(parents=True, exist_ok=True)
        self._remember()
        if self._in_use():
            self.ignored.append(f"{self.plan_file}: another Snakemake works with it; it is left as it is")
            return
        keep_plan(self.plan, self.root / self.plan_file, self._inputs)
        write_recorded(self.plan, self.methods, self.profile["recorded_datasets"], folder / "plans")
        for name in self.unprepared:  # newer than arrays that were prepared for another declaration: these are replaced
            write_if_changed(folder / "state" / f"{name}.json", canonical_json(self.datasets[name]))
        for run in self.plan["runs"]:
            self._note_scores(run)
        changes = {"-".join(target): self._made.digest(target) for target in self._targets if not self._same[target]}
        write_if_changed(self.root / self.changes_file, canonical_json(changes) + "\n")

    def _note_scores(self, run: dict) -> None:
        path = self.root / run["path"] / METRICS
        if path.is_file():
            found, faults = read_metrics(path)
            if faults or not found or found["id"] != run["id"]:
                why = faults[0].detail if faults else "is of another run"
                self.ignored.append(f"{run['path']}/{METRICS}: {why.removeprefix(f'{path}: ')}")
                note = {"scores": "not usable", "sha256": sha256_file(path)}
                write_if_changed(self.root / self._rescored(run["id"]), canonical_json(note))

    def _mapping(self, path: Path) -> dict:
        """Return a JSON object that this class wrote; empty where there is none that can be read."""
        if not path.is_file():
            return {}
        try:
            found = read_json(path)
        except (UserError, OSError) as error:
            self.ignored.append(str(error))
            return {}
        return found if isinstance(found, dict) else {}

    def _in_use(self) -> bool:
        """Return whether a Snakemake has locked the plan: it lists the files of its jobs in its folder of locks."""
        texts = [lock.read_text(errors="replace") for lock in (self.root / ".snakemake/locks").glob("*.lock")]
        return any(self.plan_file in text.splitlines() for text in texts)

    def _remembered(self) -> dict[str, dict]:
        """Return every run that a head has planned here, by id."""
        known = self._mapping(self._memory)
        return {name: run for name, run in known.items() if isinstance(run, dict) and run.get("id") == name}

    def _remember(self) -> None:
        """Add the planned runs to those that jobs find, whatever becomes of parameters and plan while they wait."""
        known = self._remembered()
        if self.runs.keys() <= known.keys():
            return
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        with open(self._memory.with_suffix(".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two heads at once: none forgets what the other one adds
            write_if_changed(self._memory, canonical_json({**self._remembered(), **self.runs}))
