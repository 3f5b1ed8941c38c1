"""Parameter files: load, validate and resolve what a run is made of.

A run's parameters are resolved in this order, later ones winning key by key: ``defaults`` of ``params/<method>.yaml``,
the precision of the profile's ``large``, the method's ``datasets.<name>``, its ``variants.<name>``, the profile's
``overrides.<method>``.
Names of ``params/shared.yaml`` are replaced by what they stand for as soon as a file is read.
A method may build on a trained run, its ``source`` (method and variant); `dica.plan.plan` adds that run's id.
Nothing heavy is imported here: Snakemake reads this module each time it parses the workflow.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from dica.data import catalog
from dica.data.pipelines import check_normalisation, check_steps
from dica.files import UserError
from dica.validation import hint, load_yaml, validate

SHARED = "params/shared.yaml"
ARCHIVE = "params/archive.yaml"


def merge(base: dict, *overrides: dict | None) -> dict:
    """Return `base` with `overrides` laid over it: mappings merge key by key, all else is replaced."""
    result = copy.deepcopy(base)
    for override in overrides:
        for key, value in (override or {}).items():
            if isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merge(result[key], value)
            else:
                result[key] = copy.deepcopy(value)
    return result


def load_profile(path: Path, root: Path, in_job: bool = False) -> dict:
    """Load a profile such as ``params/archive.yaml``: what to show, where, and with which overrides.

    Parameters
    ----------
    in_job
        What it shows is planned already: names that it has of that are not looked up in today's parameters.
    """
    profile = load_yaml(path)
    validate_profile(profile, str(path), root)
    main = root / ARCHIVE
    beside = path.resolve().parent == main.resolve().parent and path.name != main.name and main.is_file()
    if beside and load_yaml(main).get("results") == profile["results"]:
        raise UserError(
            f"{path}: results: {profile['results']!r} is the folder of {ARCHIVE}; two profiles cannot share one: name "
            f"another, such as results/{path.stem}"
        )
    if not in_job:
        _require_shown(profile, str(path), root)
    return profile


def validate_profile(profile: Any, where: str, root: Path) -> None:
    """Check a profile and every override in it; see `validate` for the errors."""
    validate(profile, "profile", where, root)
    if not profile["artefacts"] and "runs" not in profile:
        raise UserError(f"{where}: artefacts: names nothing to show")
    large, substitute = profile.get("large", {}), profile.get("substitute", {})
    datasets = [("large.except", name) for name in large.get("except", [])]
    datasets += [("substitute.dataset", substitute["dataset"])] if "dataset" in substitute else []
    _require_datasets(datasets, where, root)
    changed = {"overrides": profile["overrides"], "large.also": large.get("also", {})}
    _require_methods([(key, method) for key, block in changed.items() for method in block], where, root)
    for method, variants in large.get("also", {}).items():
        known = load_method(method, root)["variants"]
        for variant in variants:
            if variant not in known:
                raise UserError(f"{where}: large.also.{method}: unknown variant {variant!r}; {hint(variant, known)}")
    for method, override in profile["overrides"].items():
        profile["overrides"][method] = with_shared(override, f"{where}: overrides.{method}", root)
        validate(profile["overrides"][method], method, f"{where}: overrides.{method}", root, partial=True)


def _require_shown(profile: dict, where: str, root: Path) -> None:
    """Refuse names in a profile, of what it shows and records, that nothing has; the message begins with `where`."""
    for entry in profile["artefacts"]:
        _require_artefact(entry, f"{where}: artefacts", root)
    methods = [("methods", name) for name in profile["methods"] if profile["methods"] != "all"]
    methods += [("recorded_methods", name) for name in profile.get("recorded_methods", [])]
    datasets = [("recorded_datasets", name) for name in profile["recorded_datasets"]]
    if runs := profile.get("runs"):
        methods.append(("runs.method", runs["method"]))
        datasets.append(("runs.dataset", runs["dataset"]))
    _require_methods(methods, where, root)
    _require_datasets(datasets, where, root)


def _require_methods(named: list[tuple[str, str]], where: str, root: Path) -> None:
    known = method_names(root)
    for key, name in named:
        if name not in known:
            raise UserError(f"{where}: {key}: unknown method {name!r}; {hint(name, known)}")


def _require_datasets(named: list[tuple[str, str]], where: str, root: Path) -> None:
    for key, name in named:
        if name not in load_datasets(root):
            raise UserError(f"{where}: {key}: unknown data set {name!r}; {hint(name, load_datasets(root))}")


def _require_artefact(entry: str, where: str, root: Path) -> None:
    """Refuse a paper, or a single artefact of one, that is not declared."""
    paper, _, name = entry.partition(" ")
    if paper not in (papers := paper_names(root)):
        raise UserError(f"{where}: no paper {paper!r}; {hint(paper, papers)}")
    if not name:
        return
    file = f"params/artefacts/{paper}.yaml"
    body = load_yaml(root / file)
    validate(body, "artefacts", file, root)
    lower = [f"{above}-{block['rung']}" for block in body.get("lower", []) for above in block["artefacts"]]
    if name not in (known := [*body["artefacts"], *lower]):
        raise UserError(f"{where}: {file} has no {name!r}; {hint(name, known)}")


def paper_names(root: Path) -> list[str]:
    """Return the papers that declare artefacts."""
    return sorted(path.stem for path in (root / "params" / "artefacts").glob("*.yaml"))


def method_names(root: Path) -> list[str]:
    """Return the methods of the archive: the parameter files that have a schema of their own name."""
    schemas = {path.name.removesuffix(".schema.yaml") for path in (root / "workflow" / "schemas").glob("*.yaml")}
    others = {"datasets", "artefacts", "claims", "devices", "profile", "method", "training", "shared"}
    return sorted(path.stem for path in (root / "params").glob("*.yaml") if path.stem in schemas - others)


@cache
def load_method(name: str, root: Path) -> dict:
    """Load and check ``params/<name>.yaml``.

    Raises
    ------
    UserError
        For an unknown method, an unknown or ill-typed key, an unknown data set.
    """
    if name not in method_names(root):
        raise UserError(f"unknown method {name!r}; allowed: {', '.join(method_names(root))}")
    where = f"params/{name}.yaml"
    method = load_yaml(root / where)
    validate(method, "method", where, root)
    if method["method"] != name:
        raise UserError(f"{where}: method: is {method['method']!r}, must equal the file name {name!r}")
    datasets = load_datasets(root)

    def checked(block: dict | None, label: str) -> dict:
        block = with_shared(block or {}, f"{where}: {label}", root)
        validate(block, name, f"{where}: {label}", root, partial=True)
        for view, steps in block.get("views", {}).items():
            check_steps(steps, f"{where}: {label}: views.{view}")
        check_normalisation(block.get("normalisation"), None, f"{where}: {label}: normalisation")
        return block

    method["defaults"] = checked(method["defaults"], "defaults")
    for kind in ("datasets", "variants"):
        method[kind] = {key: checked(block, f"{kind}.{key}") for key, block in method[kind].items()}
    for dataset in method["datasets"]:
        if dataset not in datasets:
            raise UserError(f"{where}: datasets: unknown data set {dataset!r}; allowed: {', '.join(datasets)}")
    return method


@cache
def load_shared(root: Path) -> dict[str, dict]:
    """Load and check ``params/shared.yaml``: blocks and pipelines that several methods share, by name."""
    shared = load_yaml(root / SHARED)
    validate(shared, "shared", SHARED, root)
    for name, steps in shared["pipelines"].items():
        check_steps(steps, f"{SHARED}: pipelines.{name}")
    return shared


def with_shared(block: Any, where: str, root: Path) -> Any:
    """Return a block of a method with the values of what it takes from ``params/shared.yaml`` by name.

    Raises
    ------
    UserError
        If there is nothing of that name; the message begins with `where`.
    """
    if not isinstance(block, dict):
        return block  # the schema refuses it
    name, views = block.get("shared"), block.get("views")
    if name is not None:
        own = {key: value for key, value in block.items() if key != "shared"}
        block = merge(_named("blocks", name, f"{where}: shared", root), own)
    if isinstance(views, dict):
        named = {view: text for view, text in views.items() if isinstance(text, str)}
        found = {view: _named("pipelines", text, f"{where}: views.{view}", root) for view, text in named.items()}
        block = merge(block, {"views": found}) if found else block
    return block


def _named(kind: str, name: Any, where: str, root: Path) -> Any:
    known = load_shared(root)[kind]
    if not isinstance(name, str) or name not in known:
        raise UserError(f"{where}: {SHARED} has no {kind.removesuffix('s')} {name!r}; {hint(str(name), known)}")
    return known[name]


@cache
def load_datasets(root: Path) -> dict[str, dict]:
    """Load and check ``params/datasets.yaml``."""
    return catalog.load(root)


def resolve(method: str, variant: str, dataset: str, profile: dict, root: Path, above: tuple = ()) -> dict:
    """Return the complete parameters of one cell, nothing left to defaults.

    Parameters
    ----------
    above
        The (method, variant) pairs that build on this one, outermost first.

    Raises
    ------
    UserError
        If the method has no such variant, the data set is unknown, the result breaks the method's schema, or a source
        builds on itself.
    """
    body = load_method(method, root)
    params = layered(body, variant, dataset, profile)
    entry = catalog.entry_of(load_datasets(root), dataset)
    params = complete(body, params, entry, f"{method} ({variant}) on {dataset}", root)
    if params.get("source"):
        _follow_source(params, method, variant, dataset, profile, root, above)
    if params.get("eval_split") == "test" and "test" not in entry["splits"]:
        params["eval_split"] = "all"  # of what there is, as with the splits to train on
    if params.get("top5") and params["num_clusters"] < 5:
        raise UserError(
            f"{method} ({variant}) on {dataset}: top5: needs 5 clusters, there are {params['num_clusters']}"
        )
    return params


def layered(body: dict, variant: str, dataset: str, profile: dict) -> dict:
    """Return the parameters of a cell as its blocks give them, one over the other, not yet completed or checked.

    Raises
    ------
    UserError
        If the method has no such variant.
    """
    method, variants = body["method"], body["variants"]
    if variant not in variants:
        raise UserError(f"params/{method}.yaml: variants: no variant {variant!r}; there are: {', '.join(variants)}")
    precision = form_of(profile, method, variant, dataset)[1]
    return merge(
        body["defaults"],
        {"precision": precision} if precision and "precision" in body["defaults"] else None,
        body["datasets"].get(dataset),
        variants[variant],
        profile["overrides"].get(method),
    )


def form_of(profile: dict, method: str, variant: str, dataset: str) -> tuple[str, str | None]:
    """Return how exact a cell's runs are: level of determinism, and precision where the methods' is replaced."""
    large = profile.get("large")
    if large and (dataset not in large["except"] or variant in large.get("also", {}).get(method, [])):
        return large["determinism"], large["precision"]
    return profile.get("determinism", ""), None


def complete(body: dict, params: dict, entry: dict, where: str, root: Path) -> dict:
    """Return parameters with what they leave to the data set, checked: from here on every key is there.

    Parameters
    ----------
    body
        The method's parameter file.
    entry
        The data set's `num_classes` and `normalisation`; with its `image_size` and `channels` these are checked, too.
    where
        What the parameters are called in messages.
    """
    params = {**params, "revision": body["revision"]}
    if params.get("num_clusters", 0) is None:
        params["num_clusters"] = entry["num_classes"]
    if params.get("normalisation") == "dataset":
        params["normalisation"] = entry["normalisation"]
    validate(params, body["method"], where, root)
    for view, steps in params.get("views", {}).items():
        check_steps(steps, f"{where}: views.{view}", entry.get("image_size"))
    channels = None if entry.get("kind") == "features" else entry.get("channels")
    check_normalisation(params.get("normalisation"), channels, f"{where}: normalisation")
    return params


def check_loadable(method: str, params: dict, where: str, root: Path) -> None:
    """Refuse a run that its weights alone do not make anew, as a source or for an analysis.

    Raises
    ------
    UserError
        If it has a source and its method makes layers of that (`made_of_source` of its parameter file); the message
        begins with `where`.
    """
    if (below := params.get("source")) and load_method(method, root).get("made_of_source"):
        raise UserError(
            f"{where}: a {method} run with a source of its own cannot be loaded again, its layers are made of that "
            f"run's features; use that run itself: {below['method']} ({below['variant']})"
        )


def _follow_source(
    params: dict, method: str, variant: str, dataset: str, profile: dict, root: Path, above: tuple
) -> None:
    """Check the source of a cell, and take the splits of its run where `params` ask for them (``source``)."""
    chain = (*above, (method, variant))
    source = params["source"]["method"], params["source"]["variant"]
    where = f"params/{method}.yaml: {variant}: source"
    if source in chain:
        names = " <- ".join(f"{name} ({kind})" for name, kind in (*chain, source))
        raise UserError(f"{where}: a run would build on itself: {names}")
    try:
        theirs = resolve(*source, dataset, profile, root, chain)
    except UserError as error:
        raise UserError(str(error) if "source:" in str(error) else f"{where}: {error}") from None
    check_loadable(source[0], theirs, where, root)
    for key in ("train_split", "eval_split"):
        if params[key] == "source":
            params[key] = theirs[key]
