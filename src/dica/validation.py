"""YAML files and their schemas: one reader and one way to complain for all of params/."""

from __future__ import annotations

import difflib
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dica.files import UserError, canonical_json, require_plain

SHOWN = 40  # names that a message lists at most
FLOAT = "tag:yaml.org,2002:float"
MERGE = "tag:yaml.org,2002:merge"
TEXT_LIMIT = 10_000_000  # characters of a file; the longest parameter file has some 20,000
DEPTH_LIMIT = 100  # mappings and lists inside each other
NODE_LIMIT = 200_000  # values, with every alias written out: a small file can claim to be enormous
MESSAGE_LIMIT = 600  # characters of an error message
SCALAR_LIMIT = 1000  # characters of one text in a parameter file; the longest, a note, has some 400
SCHEMA_KEYS = {"$schema", "title", "takes", "views", "optional", "properties", "not"}  # of a method's short schema


_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml if it is there: eight times as fast

# Words and numbers that YAML 1.1 does not read as a person does, so that another program may read them otherwise.
TRAPS = {
    "a number with leading zeros may be octal": r"[-+]?0[0-9][0-9_.]*([eE][-+]?[0-9]+)?",
    "write the number with the digits 0 to 9": r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)",
    "write the number without _": r"[-+]?\.?[0-9][0-9_.]*_[0-9_.]*([eE][-+]?[0-9]+)?",
    "may be read as minutes and seconds": r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?",
    "may be read as a date": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?",
    "is no number to work with": r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)",
    "write true or false": r"True|TRUE|False|FALSE|(?i:yes|no|on|off)",
    "write null": r"~|Null|NULL",
}
TRAP = re.compile("|".join(f"(?P<t{number}>{pattern})" for number, pattern in enumerate(TRAPS.values())))


class _Loader(_Parser):
    """Safe YAML that refuses a key given twice (YAML itself silently keeps the last one).

    As in YAML 1.2, 1e-4 is a number and `y` a word, and so is `off` in other programs' files; PyYAML by itself reads
    them the other way round.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", FLOAT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _require_few(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted(key for key, count in Counter(names).items() if count > 1):
            raise _refusal(f"key given twice: {twice[0]}", node)
        for place, (key, value) in enumerate(node.value):
            if key.tag == MERGE and (place or isinstance(value, yaml.SequenceNode)):
                raise _refusal("`<<` takes one mapping and comes first, so that what wins is what comes later", key)
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                raise _refusal(f"the key {str(key)[:50]} is not text; put it in quotes if it is meant to be", node)
        return mapping

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        value = float(node.value)
        if not math.isfinite(value):
            raise _refusal(f"{node.value[:50]} is too large for a number", node)
        return value


def _require_plain(text: str, ours: bool) -> None:
    """Refuse, before any value is built, deep nesting and what a person reads otherwise than YAML does."""
    depth = 0
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                raise _refusal("nested too deeply", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not ours:
            continue
        if getattr(event, "tag", None):
            raise _refusal(f"{event.tag[:50]}: could not determine a constructor for tags; none is needed", event)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > SCALAR_LIMIT:
            raise _refusal(f"a text of {len(event.value)} characters; at most {SCALAR_LIMIT} are read", event)
        if isinstance(event, yaml.ScalarEvent) and not event.style and (trap := TRAP.fullmatch(event.value)):
            why = list(TRAPS)[int(str(trap.lastgroup)[1:])]
            raise _refusal(f"{event.value[:50]}: {why}; put it in quotes if text is meant", event)


def _refusal(problem: str, node: yaml.Node | yaml.Event) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _require_few(root: yaml.Node) -> None:
    """Refuse a tree of more than `NODE_LIMIT` values, counted without writing its aliases out, or one inside itself."""
    weights: dict[int, int] = {}
    open_nodes: set[int] = set()

    def weight(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in open_nodes:
            raise _refusal("an alias refers to what it is a part of", node)
        if id(node) not in weights:
            open_nodes.add(id(node))
            below = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value

            weights[id(node)] = 1 + sum(map(weight, below))
            open_nodes.discard(id(node))
        if weights[id(node)] > NODE_LIMIT:
            raise _refusal(f"more than {NODE_LIMIT} values (aliases count as often as they are used)", node)
        return weights[id(node)]

    weight(root)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false$"), list("tf"))
_Loader.add_implicit_resolver(
    FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)
_Loader.add_constructor(FLOAT, _Loader.construct_finite)


@lru_cache(maxsize=1024)
def _parsed(text: str, ours: bool) -> bytes:
    """Return what a text says, pickled: whoever reads the same text again gets a value of its own at little cost."""
    _require_plain(text, ours)
    return pickle.dumps(yaml.load(text, Loader=_Loader))


def load_yaml(path: Path, ours: bool = True, data: bytes | None = None) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    data
        What it holds, where that has been read already.
    ours
        People write it for this archive: what YAML reads otherwise than they do is refused. Other programs' files
        (`dvc.lock`) are written and read by the same rules.

    Raises
    ------
    UserError
        If the file is missing, is not YAML, gives a key twice, or is out of all proportion; the message has file and
        line.
    """
    try:
        if data is None:
            require_plain(path)
        text = path.read_text(encoding="utf-8") if data is None else data.decode()
        if len(text) > TEXT_LIMIT:
            raise UserError(f"{path}: {len(text)} characters; at most {TEXT_LIMIT} are read")
        return pickle.loads(_parsed(text, ours))
    except OSError as error:
        raise UserError(
            f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets some of Python's own errors through
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: {short(getattr(error, 'problem', None) or str(error))}") from None


def short(text: str) -> str:
    """Return `text` as one line that fits a screen."""
    text = " ".join(text.split())
    if len(text) <= MESSAGE_LIMIT:
        return text
    half = MESSAGE_LIMIT // 2  # cut between words, where there are some
    return f"{text[:half].rpartition(' ')[0] or text[:half]} … {text[-half:].partition(' ')[2] or text[-half:]}"


_SCHEMAS: dict[Path, dict[str, bytes]] = {}  # what the files of each folder hold


@cache
def _folder(root: Path) -> Path:
    """Return the folder of a project's schemas; of several with the same ones the first: they share what has passed."""
    folder = root / "workflow" / "schemas"
    files = {path.name: path.read_bytes() for path in folder.glob("*.yaml")}
    for known, same in _SCHEMAS.items():
        if same == files:
            return known
    _SCHEMAS[folder] = files
    return folder


@cache
def _schema(folder: Path, name: str) -> dict:
    """Return a schema of `folder`, that of a method written out, see `_whole_schema`."""
    body = load_yaml(folder / name, data=_SCHEMAS[folder].get(name))
    if "takes" in body:
        return _whole_schema(body, _schema(folder, "training.schema.yaml"), f"workflow/schemas/{name}")
    return body


@cache
def _validator(folder: Path, name: str) -> Any:
    """Return the validator of one schema; only those are read that it refers to."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    named, open_names = set(), {name}
    while open_names:
        named |= open_names
        texts = [canonical_json(_schema(folder, other)) for other in open_names]
        open_names = {other for text in texts for other in re.findall(r"([\w-]+\.schema\.yaml)#", text)} - named
    known = [(other, DRAFT202012.create_resource(_schema(folder, other))) for other in sorted(named)]
    return _kind(folder)(_schema(folder, name), registry=Registry().with_resources(known))


@cache
def _kind(folder: Path) -> Any:
    """Return the class of the validators of the schemas in `folder`: they share what has passed already."""
    from jsonschema import Draft202012Validator, validators

    passed: set[tuple[int, str]] = set()

    def properties(validator: Any, properties: dict, instance: Any, schema: dict) -> Iterator[Any]:
        """Check each property, but one that has passed this very schema before only once.

        The cells of a plan share most of their blocks; checking them again would be most of the time of a plan.
        """
        for key, below in properties.items() if isinstance(instance, dict) else ():
            if key in instance and (seen := (id(below), repr(instance[key]))) not in passed:
                faults = list(validator.descend(instance[key], below, path=key, schema_path=key))
                yield from faults
                if not faults:
                    passed.add(seen)

    def is_integer(_: Any, value: Any) -> bool:
        """Tell what counts as one; by JSON Schema 1e30 and 2.0 do too, and end as floats where sizes are wanted."""
        return isinstance(value, int) and not isinstance(value, bool)

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    return validators.extend(Draft202012Validator, {"properties": properties}, type_checker=types)


def _whole_schema(short: dict, common: dict, where: str) -> dict:
    """Return the JSON schema of a method whose short one says only what is its own.

    Parameters
    ----------
    short
        `takes` (groups and keys of `common`), `views` (its pipelines), `properties` (its own keys), `optional`.
    common
        The keys that several methods share, in `$defs`, and `groups` of them.

    Raises
    ------
    UserError
        If it names what is not there; the message begins with `where`.
    """
    known, own, optional = common["$defs"], short.get("properties", {}), short.get("optional", [])
    if unknown := sorted(short.keys() - SCHEMA_KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(SCHEMA_KEYS))}")
    taken = list(common["groups"]["every"])
    for name in [*short["takes"], *(["normalisation"] if "views" in short else [])]:
        if name not in common["groups"] and name not in known:
            choice = hint(name, [*common["groups"], *known])
            raise UserError(f"{where}: takes: no group and no key {name!r} in training.schema.yaml; {choice}")
        taken += common["groups"].get(name, [name])
    properties = {name: known[name] for name in taken}
    if "views" in short:
        pipelines = dict.fromkeys(short["views"], known["pipeline"])
        views = {"type": "object", "additionalProperties": False, "required": short["views"], "properties": pipelines}
        properties["views"] = views
    properties |= own
    if absent := sorted(set(optional) - properties.keys()):
        raise UserError(f"{where}: optional: no key {absent[0]!r} here; {hint(absent[0], properties)}")
    may_lack = {*common["optional"], *optional}
    required = [name for name in properties if name not in may_lack]
    rest = {key: short[key] for key in ("title", "not") if key in short}
    return {**rest, "type": "object", "additionalProperties": False, "required": required, "properties": properties}


def validate(value: Any, schema_name: str, where: str, root: Path, partial: bool = False) -> None:
    """Check `value` against ``workflow/schemas/<schema_name>.schema.yaml``.

    Parameters
    ----------
    where
        What the value is called in messages: the file, and the block inside it.
    partial
        Accept absent keys: a block of overrides need not be complete.

    Raises
    ------
    UserError
        With the place, the offending key or value and what is allowed there.
    """
    folder, name = _folder(root), f"{schema_name}.schema.yaml"
    if name not in _SCHEMAS[folder]:
        raise UserError(f"workflow/schemas/{name}: no such schema; every params file has one")
    # One is shown; a file of nothing but mistakes has thousands.
    found = islice(_validator(folder, name).iter_errors(value), 100)
    errors = [error for error in found if not (partial and error.validator == "required")]
    # A wrong kind also breaks the conditions that rest on it; the plain errors say what is wrong.
    plain = [error for error in errors if not {"then", "else"} & set(error.schema_path)]
    for error in sorted(plain or errors, key=lambda e: list(map(str, e.absolute_path))):
        raise UserError(f"{where}: {short(_explain(error))}")


def schema(name: str, root: Path) -> dict[str, Any]:
    """Return the whole JSON schema of a kind of file, with what it takes from others."""
    return _schema(_folder(root), f"{name}.schema.yaml")


def _explain(error: Any) -> str:
    """Turn the most specific part of a schema error into one sentence for a person."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator not in ("type", "const")))
    place = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{place}: " if place else ""
    if error.validator == "not" and "required" in error.validator_value:
        return f"{prefix}{', '.join(error.validator_value['required'])} does not apply to this kind; remove it"
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(key for key in error.instance if key not in allowed)
        return f"{prefix}unknown key {', '.join(map(repr, unknown))}; allowed: {', '.join(allowed)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{prefix}missing key {', '.join(map(repr, missing))}"
    if error.validator == "enum":
        return f"{prefix}{error.instance!r} is not one of: {', '.join(map(str, error.validator_value))}"
    return f"{prefix}{error.message}"


def hint(name: str, known: Iterable[str]) -> str:
    """Return `did you mean …? there are: …` for a name that is not among `known`, the nearest ones first."""
    known = list(dict.fromkeys(known))
    if not known:
        return "there are none yet"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    question = f"did you mean {' or '.join(near)}? " if near else ""
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"{question}there are: {', '.join(known[:SHOWN])}{more}"
