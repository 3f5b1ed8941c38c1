"""Generated pages of the documentation site: what each method is and takes, and every command with its options.

Nothing is told here that another file does not say: params/ and the schemas know the keys, docstrings the methods,
parsers the commands. `workflow/scripts/documentation.py` puts the pages together.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dica.files import UserError
from dica.plan.parameters import load_method, method_names
from dica.validation import schema

LOSSES = "dica.losses."


def source_of(method: str, root: Path) -> Path:
    """Return the file that a method is written in."""
    return root / "src/dica/methods" / f"{method.replace('-', '_')}.py"


def comments(text: str) -> dict[str, str]:
    """Return what the comments of a parameter file say of each key of its `defaults`.

    Examples
    --------
    >>> comments("defaults:\\n  # Section 3\\n  lr: 0.1  # code\\n  beta: 1.0\\n")
    {'lr': 'Section 3; code'}
    """
    lines = text.splitlines()
    body = dict((key.value, value) for key, value in yaml.compose(text, yaml.SafeLoader).value)["defaults"]
    starts = {key.value: key.start_mark.line for key, _ in body.value}
    ends = [*list(starts.values())[1:], body.end_mark.line]
    found = {}
    for (name, start), end in zip(starts.items(), ends, strict=True):
        while lines[start - 1].lstrip().startswith("#"):
            start -= 1
        while end > start + 1 and not lines[end - 1].split("#")[0].strip():  # what stands above the next key is its own
            end -= 1
        said = [line.partition(" #")[2].strip() for line in lines[start:end] if " #" in line]
        if said:
            found[name] = "; ".join(said)
    return found


def losses_of(path: Path) -> list[str]:
    """Return the full names of the losses that a module takes from `dica.losses`, those of its paper first."""
    taken = [
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(LOSSES)
        for name in node.names
        if name.name.islower()
    ]
    return sorted(set(taken), key=lambda name: (name.startswith(f"{LOSSES}common"), name))


def method_page(name: str, root: Path) -> str:
    """Return the page of a method: paper, equations and deviations, losses, keys, data sets and variants."""
    body = load_method(name, root)
    path = source_of(name, root)
    text = (root / "params" / f"{name}.yaml").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise UserError(f"{path}: no docstring; it says what the paper is and what it computes")
    said = comments(text)
    known = schema(name, root)["properties"]
    rows = [
        [f"`{key}`", _code(body["defaults"][key]) if key in body["defaults"] else "", _described(entry), said.get(key)]
        for key, entry in known.items()
        if key != "revision"
    ]
    losses = [f"- {{py:func}}`{full}`" for full in losses_of(path)]
    below = text[text.index("\ndatasets:") :].strip() if "\ndatasets:" in text else text[text.index("\nvariants:") :]
    parts = [
        f"# {body['title']}",
        *([f"*{body['paper']}*"] if body.get("paper") else []),
        docstring,
        *(["## Losses", "\n".join(losses)] if losses else []),
        "## Keys",
        f"What stands in `params/{name}.yaml`, checked against `workflow/schemas/{name}.schema.yaml`.",
        _table(["key", "default", "what", "source"], rows),
        "## Data sets and variants",
        "What each changes of the defaults, with the reason.",
        f"```yaml\n{below.strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def methods_pages(root: Path) -> dict[str, str]:
    """Return the page of each method by its name."""
    return {name: method_page(name, root) for name in method_names(root)}


def _described(entry: dict[str, Any]) -> str:
    choice = entry.get("enum")
    allowed = f" One of: {', '.join(f'`{value}`' for value in choice)}." if choice else ""
    return f"{' '.join(entry.get('description', '').split())}{allowed}"


def _code(value: Any) -> str:
    if isinstance(value, dict) and len(str(value)) > 60:
        return "see the file"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    return f"`{text}`"


def _table(head: list[str], rows: list[list[str | None]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + ":--|" * len(head)]
    lines += [f"| {' | '.join((cell or '').replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def command_page(command: Any, words: tuple[str, ...] = ("dica",)) -> str:
    """Return the help of a command of `dica` and of all below it, as its parser knows it.

    Parameters
    ----------
    command
        Of click, which typer makes of functions.
    """
    return "\n\n".join(_of_click(command, words)) + "\n"


def _of_click(command: Any, words: tuple[str, ...]) -> Iterator[str]:
    below = getattr(command, "commands", {})
    if len(words) > 1:
        yield f"{'#' * len(words)} {' '.join(words)}"
    if not below:
        usage = " ".join([*words, *(_usage(parameter) for parameter in command.params)])
        yield f"```text\n{usage}\n```"
    yield (command.help or "").strip()
    rows: list[list[str | None]] = [
        [f"`{_names(parameter)}`", getattr(parameter, "help", None)]
        for parameter in command.params
        if "--install-completion" not in parameter.opts and "--show-completion" not in parameter.opts
    ]
    if rows and not below:
        yield _table(["option", "what"], rows)
    for name, inner in below.items():
        yield from _of_click(inner, (*words, name))


def _names(parameter: Any) -> str:
    return ", ".join(parameter.opts) if parameter.opts[0].startswith("-") else parameter.name.upper()


def _usage(parameter: Any) -> str:
    name = parameter.name.upper() if not parameter.opts[0].startswith("-") else parameter.opts[0]
    return name if parameter.required else f"[{name}]"


def door_page(parser: argparse.ArgumentParser) -> str:
    """Return the section of a program that needs no workflow, from its parser."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    return f"## {parser.prog}\n\n```text\n{parser.format_help().strip()}\n```\n"
