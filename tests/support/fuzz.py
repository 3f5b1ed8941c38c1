"""Spoil parameter files in seeded random ways and see whether the project still answers with one clear error."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from dica import validation
from dica.files import UserError, canonical_json
from dica.plan import artefacts, claims
from dica.plan import parameters as config

ROOT = Path(__file__).resolve().parents[2]

WRONG: list[Any] = [
    *(None, True, False, 0, -1, -(10**30), 10**400, 0.0, -0.5, 1e308, float("inf"), float("nan")),
    *("", " ", "x", "null", "ä", "\u202e", "../../etc", "x" * 10_000, "0", "1e-4", "2020-01-01"),
    *([], [[]], [None], [0] * 1000, {}, {"": ""}, {"x": {"y": {"z": []}}}, {1: 2}, {None: None}, {(1, 2): 3}),
]

DEEP = "[" * 2_000 + "]" * 2_000
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "comment alone": b"# nothing\n",
    "a word": b"drc\n",
    "a list": b"- 1\n- 2\n",
    "null": b"null\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "UTF-16": "name: archive\n".encode("utf-16"),
    "zero bytes": b"name: \x00\n",
    "binary": bytes(range(256)) * 20,
    "key given twice": b"name: a\nname: b\n",
    "unclosed": b"name: [a\n",
    "tabs": b"name:\n\t- a\n",
    "two documents": b"name: a\n---\nname: b\n",
    "code": b"name: !!python/object/apply:os.system ['true']\n",
    "unknown tag": b"name: !thing {a: 1}\n",
    "unknown anchor": b"name: *nothing\n",
    "alias of itself": b"name: &a [*a]\n",
    "mapping of itself": b"name: &a {x: *a}\n",
    "merge of itself": b"a: &a\n  <<: *a\n",
    "merge bomb": b"a: &a {x: 1}\nb: &b\n  <<: [" + b", ".join([b"*a"] * 5_000) + b"]\n",
    "alias bomb": BOMB.encode(),
    "deep lists": DEEP.encode(),
    "deep mappings": ("{a: " * 2_000 + "1" + "}" * 2_000).encode(),
    "a list as key": b"? [a, b]\n: 1\n",
    "a mapping as key": b"{{a: b}: 1}\n",
    "huge number": b"name: " + b"9" * 10_000 + b"\n",
    "sexagesimal": b"name: 190:20:30\n",
    "dates": b"name: 2001-12-14t21:59:43.10-05:00\nother: 0000-99-99\n",
    "long line": b"name: " + b"x" * 300_000 + b"\n",
    "many keys": "\n".join(f"key{i}: {i}" for i in range(3_000)).encode(),
}

RECORDS: dict[str, bytes] = {  # what may stand where a JSON or CSV record is expected
    "empty": b"",
    "null": b"null",
    "a list": b"[1, 2]",
    "a text": b'"dica"',
    "an empty object": b"{}",
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an integer of 5,000 digits": b'{"id": ' + b"9" * 5_000 + b"}",
    "no number": b'{"seconds": NaN, "seed": -Infinity}',
    "not UTF-8": b'{"id": "\xff\xfe"}',
    "UTF-16": '{"id": 1}'.encode("utf-16"),
    "zero bytes": b"a,b\n\x00,1\n",
    "half a surrogate": b'{"id": "\\ud800", "reason": "\\ud800"}',
    "a terminal's commands": b'{"id": "\x1b[2J\\u001b]0;x\\u0007"}',
    "torn": b'{"id": "ab',
    "an open quote": b'paper,artefact\n"drc,table-1\n',
    "a cell of 200,000 letters": b"paper,artefact\n" + b"x" * 200_000 + b",1\n",
    "more cells than columns": b"paper,artefact\n1,2,3,4\n",
    "binary": bytes(range(256)) * 40,
}


def make_project(folder: Path) -> Path:
    """Copy what planning reads."""
    for name in ("params", "workflow/schemas"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "Snakefile").touch()
    return folder


def parameter_files(root: Path = ROOT) -> list[str]:
    """Every YAML file that a user may edit, relative to the project root."""
    return sorted(path.relative_to(root).as_posix() for path in (root / "params").rglob("*.yaml"))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every mapping, list and leaf in a parsed file."""
    yield path
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, key))


def spoilt(body: Any, draw: random.Random) -> tuple[str, Any]:
    """Return what was done to a copy of `body`, and the copy."""
    body = copy.deepcopy(body)
    path = draw.choice(list(places(body))[1:])
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    where = ".".join(map(str, path))
    kind = draw.choice(["replace", "remove", "add", "rename"])
    if kind == "replace" or isinstance(parent, list):
        parent[path[-1]] = wrong = draw.choice(WRONG)
        return f"{where} = {str(wrong)[:30]!r}", body
    if kind == "add":
        parent[draw.choice(["unknown", "epoch", "Lr", "$ref", "__class__", "ü"])] = draw.choice(WRONG)
        return f"{where}: a sibling more", body
    value = parent.pop(path[-1])
    if kind == "rename":
        parent[f"{path[-1]}x"] = value
    return f"{where} {kind}d", body


def dump(body: Any) -> str:
    """Return `body` as YAML, or as Python shows it where YAML has no way to write it."""
    try:
        return yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError:
        return str(body)


def answer(root: Path, name: str) -> str | None:
    """Read a parameter file under `root` as planning does; return the error that a user sees, or None without one.

    Whatever is no UserError comes out as it is: that is what fuzzing looks for.
    """
    config.load_method.cache_clear()
    config.load_datasets.cache_clear()
    stem = Path(name).stem
    try:
        if "/artefacts/" in name:
            for artefact in artefacts.load_artefacts(root, [stem]):
                artefacts.needs(artefact)
        elif "/claims/" in name:
            claims.load_claims(root, [stem])
        elif stem in config.method_names(root):
            for variant in list(config.load_method(stem, root)["variants"])[:2]:
                canonical_json(config.resolve(stem, variant, "digits", {"overrides": {}}, root))
        elif stem == "datasets":
            for entry in config.load_datasets(root).values():
                canonical_json(entry)
        else:
            canonical_json(config.load_profile(root / name, root))
    except UserError as error:
        return str(error)
    return None


def fuzz(root: Path, name: str, texts: Sequence[str], spoilings: int, seed: int) -> dict[str, int]:
    """Spoil one file in many ways; return how many inputs were tried and how many were refused.

    Raises
    ------
    AssertionError
        If an answer is not one short line that names the file, took long, or a hopeless text was accepted.
    """
    path, draw = root / name, random.Random(f"{name} {seed}")
    sound = path.read_bytes()
    body = validation.load_yaml(path)
    tried = [(text, TEXTS[text], True) for text in texts]
    for _ in range(spoilings):
        what, changed = spoilt(body, draw)
        tried.append((what, dump(changed).encode(), False))
    refused = 0
    try:
        for what, content, hopeless in tried:
            path.write_bytes(content)
            begin = time.process_time()
            try:
                message = answer(root, name)
            except Exception as error:
                raise AssertionError(f"{name}: {what}: {type(error).__name__}: {error}") from error
            assert time.process_time() - begin < 20, f"{name}: {what}: slow"  # measuring coverage takes most of it
            assert message or not hopeless, f"{name}: {what}: accepted"
            if message:
                refused += 1
                assert "\n" not in message, f"{name}: {what}: {message}"
                assert len(message) < 1500, f"{name}: {what}: {len(message)} characters"
                assert Path(name).name in message or Path(name).stem in message, f"{name}: {what}: {message}"
    finally:
        path.write_bytes(sound)
    return {"tried": len(tried), "refused": refused}


def spoilt_records(path: Path, texts: Sequence[str], spoilings: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done to a record file, and its new content: of `RECORDS`, then a JSON record's own, spoilt."""
    sound = path.read_text(encoding="utf-8")
    yield from ((name, RECORDS[name]) for name in texts)
    if path.suffix == ".json":
        body, draw = json.loads(sound), random.Random(f"{path.name} {seed}")
        for _ in range(spoilings):
            what, changed = spoilt(body, draw)
            with contextlib.suppress(TypeError):  # a key that JSON has no way to write
                yield what, json.dumps(changed).encode()


def complaint(code: object, output: str, errors: str) -> str:
    """Return what is wrong with how a command ended, or nothing: a known code, and at most one line of error."""
    if code not in (None, 0, 1, 2, 3, 4):
        return f"exit code {code!r}"
    if "Traceback" in output + errors:
        return "a traceback"
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    if len(lines) > 1 or (code in (1, 2) and not errors.strip()):
        return f"{len(lines)} lines of error"
    return f"{len(lines[0])} characters" if lines and len(lines[0]) > 2000 else ""
