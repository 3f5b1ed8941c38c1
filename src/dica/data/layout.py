"""What the folders around images mean: splits, classes, or nothing. Only names are looked at, with `/` between folders.

    train/<class>/a.jpg, test/<class>/b.jpg     two labelled splits
    <class>/a.jpg                               one labelled split, `train`
    a.jpg                                       one split without labels, `train`; declare `prepare: {labels: none}`

The usual names of splits count in any case (`Train`, `testing`, `unlabelled`, `train_set`). Held-out images under
another name (`val`, `dev`) are split `test` where there is no `test`. One folder around everything that holds folders
carries no meaning and is skipped; one that holds images alone is a class. What could mean two things (images beside
class folders, splits inside one of several folders) is refused, and the message names the key of `prepare` that decides
it: `top`, `split_folders`, `classes`, `labels`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from dica.files import UserError
from dica.validation import hint

SPLIT_NAME = re.compile(
    r"((?P<train>train(ing)?)|(?P<test>test(ing)?)|(?P<unlabeled>unlabell?ed)"
    r"|(?P<held_out>val(id(ation)?)?|dev(elopment)?|eval(uation)?|hold[ _-]?out))"
    r"([ _-]?(set|data|images|split))?([ _-]?\d+)?"  # train_set, val2017
)
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FOREIGN = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".jp2",
    ".svg",
    ".psd",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
)  # not read
LABELLED = ("train", "test")


class ImagePlace(NamedTuple):
    """Where an image belongs: its split, class (None without labels) and name."""

    split: str
    label: str | None
    name: str


def arrange(names: Iterable[str], where: str, prepare: dict[str, Any] | None = None) -> list[ImagePlace]:
    """Sort image names into splits and classes, in the order in which they are stored.

    Parameters
    ----------
    names
        The names, with `/` between folders.
    where
        The folder or archive, for messages.
    prepare
        The data set's `prepare`; its keys win over what the names look like.

    Raises
    ------
    UserError
        If there is no name, or the names could mean more than one thing, or contradict what is declared.
    """
    prepare = prepare or {}
    names = list(names)
    if not names:
        raise UserError(f"{where}: no image found (looked for {', '.join(SUFFIXES)})")
    paths = _below_top({name: tuple(name.split("/")) for name in names}, prepare.get("top"), where)
    split_of = _split_folders(paths.values(), prepare.get("split_folders"), where)
    declared = {"split_folders", "classes"} & set(prepare)
    if not split_of and not declared and prepare.get("labels") != "none":
        _require_classes_on_top(paths.values(), where)
    places = []
    for name, parts in paths.items():
        if not split_of:
            places.append(("train", parts, name))
        elif parts[0] in split_of and len(parts) > 1:
            places.append((split_of[parts[0]], parts[1:], name))
    with_labels = [] if prepare.get("labels") == "none" else _labelled_splits(places, where)
    if split_of and "classes" not in prepare:
        _require_no_wrapper(places, with_labels, where)
    found = [ImagePlace(split, nfc(parts[0]) if split in with_labels else None, name) for split, parts, name in places]
    _require_one_spelling(paths, where)
    _require_same_classes(found, with_labels, prepare.get("classes"), where)
    return sorted(found, key=lambda place: (place.split, place.label or "", nfc(place.name), place.name))


def is_image(name: str) -> bool:
    """Whether a file is an image: hidden ones are what systems leave behind (`._a.jpg`, `.DS_Store`)."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_foreign(name: str) -> bool:
    """Whether a file is an image of a kind that is not read."""
    return name.lower().endswith(FOREIGN) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a file is one that systems leave behind, or lies in a hidden folder."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def class_names(places: list[ImagePlace], prepare: dict[str, Any]) -> list[str]:
    """Return the classes in the order of their labels: as declared, or sorted."""
    declared = prepare.get("classes")
    return list(map(nfc, declared)) if declared else sorted({p.label for p in places if p.label is not None})


def nfc(text: str) -> str:
    """Return the composed form: macOS stores `é` as two characters, other systems as one."""
    return unicodedata.normalize("NFC", text)


def _below_top(paths: dict[str, tuple[str, ...]], top: str | None, where: str) -> dict[str, tuple[str, ...]]:
    """Return each name's folders below the declared `top`, or below the folders that only wrap everything."""
    if top is not None:
        head = tuple(part for part in top.split("/") if part not in ("", "."))
        below = {name: parts[len(head) :] for name, parts in paths.items() if parts[: len(head)] == head}
        if not below:
            raise UserError(f"{where}: no image below {top!r} (`prepare.top`)")
        return below
    while _is_wrapped(paths.values()):
        paths = {name: parts[1:] for name, parts in paths.items()}
    return paths


def _is_wrapped(paths: Iterable[tuple[str, ...]]) -> bool:
    """Whether one folder, which is no split and holds folders, is around everything."""
    paths = list(paths)
    within = min(map(len, paths)) > 1 and max(map(len, paths)) > 2
    return within and len({parts[0] for parts in paths}) == 1 and not split_meant(paths[0][0])


def split_meant(folder: str) -> str | None:
    """Return `train`, `test`, `unlabeled` or `held_out` if a folder has a usual name of a split, else None."""
    match = SPLIT_NAME.fullmatch(folder.lower())
    return next(role for role, text in match.groupdict().items() if text) if match else None


def _split_folders(
    paths: Iterable[tuple[str, ...]], declared: dict[str, str | list[str]] | None, where: str
) -> dict[str, str]:
    """Return folder -> split; empty where the top folders are classes or there are none."""
    paths = list(paths)
    tops = sorted({parts[0] for parts in paths if len(parts) > 1})
    if declared is not None:
        return _declared_folders(declared, tops, where)
    meant = {top: split_meant(top) for top in tops}
    if not any(meant.values()):
        return {}
    by_role: dict[str, list[str]] = {}
    for top, role in meant.items():
        by_role.setdefault(role or "class", []).append(top)
    if "test" not in by_role and "train" in by_role and "held_out" in by_role:
        by_role["test"] = by_role.pop("held_out")
    loose = any(len(parts) == 1 for parts in paths)
    if loose or {"class", "held_out"} & set(by_role) or any(len(folders) > 1 for folders in by_role.values()):
        raise UserError(_ambiguous(by_role, loose, where))
    return {folders[0]: role for role, folders in by_role.items()}


def _require_classes_on_top(paths: Iterable[tuple[str, ...]], where: str) -> None:
    """Refuse top folders of which one holds splits, or has all that any has: then they look like splits themselves."""
    below: dict[str, set[str]] = {}
    for parts in paths:
        below.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else [])
    for top, held in below.items():
        if splits := sorted(folder for folder in held if split_meant(folder)):
            raise UserError(
                f"{where}: {top!r} holds {', '.join(map(repr, splits[:3]))}, which look like splits, and "
                f"{len(below) - 1} more beside it; read that alone with `prepare: {{top: {top}}}`, or declare "
                "`split_folders: {}` if the outer folders are the classes"
            )
    every: set[str] = set().union(*below.values())
    if len(below) > 1 and len(every) > 1 and all(below.values()) and every in below.values():
        tops, inside = sorted(below), ", ".join(map(repr, sorted(every)[:3]))
        raise UserError(
            f"{where}: {', '.join(map(repr, tops[:3]))} hold the same folders ({inside}), as splits do; say which "
            f"folders are read, such as `prepare: {{split_folders: {{train: {tops[-1]}, test: {tops[0]}}}}}`, or "
            "`split_folders: {}` if they are the classes"
        )


def _declared_folders(declared: dict[str, str | list[str]], tops: list[str], where: str) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split, folders in declared.items():
        for folder in [folders] if isinstance(folders, str) else folders:
            if folder not in tops:
                raise UserError(f"{where}: prepare.split_folders.{split}: no folder {folder!r}; {hint(folder, tops)}")
            if folder in split_of:
                raise UserError(f"{where}: prepare.split_folders: {folder!r} is there twice")
            split_of[folder] = split
    return split_of


def _ambiguous(by_role: dict[str, list[str]], loose: bool, where: str) -> str:
    splits = [top for role, tops in by_role.items() if role != "class" for top in tops]
    beside = [repr(top) for top in by_role.get("class", [])[:3]] + (["images"] if loose else [])
    example: dict[str, str] = {role: by_role[role][0] for role in ("train", "test", "unlabeled") if role in by_role}
    if "train" not in example:
        example = {"train": splits[0]} | example
    if "test" not in example and by_role.get("held_out"):
        example["test"] = by_role["held_out"][0]
    shown = ", ".join(f"{split}: {folder}" for split, folder in example.items())
    return (
        f"{where}: {', '.join(map(repr, splits))} look like splits"
        + (f", but {', '.join(beside)} beside them do not" if beside else ", but of more kinds than train and test")
        + f"; say which folders are read, such as `prepare: {{split_folders: {{{shown}}}}}`, or `split_folders: {{}}` "
        "if all are classes"
    )


def _labelled_splits(places: list[tuple[str, tuple[str, ...], str]], where: str) -> list[str]:
    labelled = []
    for split in LABELLED:
        depths = {len(parts) > 1: name for place, parts, name in places if place == split}
        if len(depths) == 2:
            raise UserError(
                f"{where}: {split} has images inside class folders and outside ({depths[False]!r}); use one way, or "
                f"`prepare: {{labels: none}}` if folders are no classes"
            )
        if True in depths:
            labelled.append(split)
    return labelled


def _require_no_wrapper(places: list[tuple[str, tuple[str, ...], str]], labelled: list[str], where: str) -> None:
    """Refuse a split with one folder alone that holds folders: they may be the classes, or it."""
    for split in labelled:
        inside = [parts for place, parts, _ in places if place == split]
        tops = sorted({parts[0] for parts in inside})
        if len(tops) == 1 and any(len(parts) > 2 for parts in inside):
            raise UserError(
                f"{where}: all images of {split} lie in {tops[0]!r}, which holds folders; move them up if they are the "
                f"classes, or declare `prepare: {{classes: [{tops[0]}]}}`, or `{{labels: none}}` if there are none"
            )


def _require_one_spelling(names: Iterable[str], where: str) -> None:
    """Refuse two names that differ only in how Unicode composes a letter: elsewhere they are one name."""
    spelled: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if (known := spelled.setdefault(nfc(path), path)) != path:
                raise UserError(
                    f"{where}: {known!a} and {path!a} are one name, written with other Unicode characters; rename one"
                )


def _require_same_classes(found: list[ImagePlace], labelled: list[str], declared: list[str] | None, where: str) -> None:
    of_split = {split: {str(place.label) for place in found if place.split == split} for split in labelled}
    everything: set[str] = set().union(*of_split.values())
    if declared is not None:
        wanted = set(map(nfc, declared))
        if unlike := sorted(everything ^ wanted):
            state = "not found" if unlike[0] in wanted else "found, but not declared"
            raise UserError(f"{where}: class {unlike[0]!r} is {state} (`prepare.classes`)")
        return
    spelled: dict[str, str] = {}
    for name in sorted(everything):
        if (known := spelled.setdefault(_as_seen(name), name)) != name:
            raise UserError(
                f"{where}: the classes {known!a} and {name!a} look the same, and are one folder on some systems; "
                "rename one, or list all classes under `prepare.classes` if both are meant"
            )
    for split, classes in of_split.items():
        if missing := sorted(everything - classes):
            raise UserError(
                f"{where}: split {split} has no class {missing[0]!r}, another split has; if that is meant, list all "
                f"classes under `prepare.classes`, or read other folders with `prepare.split_folders`"
            )


def _as_seen(name: str) -> str:
    """Return a name without what a person does not see (blanks at its ends, letters of no width) and without case."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(seen.split()).casefold()
