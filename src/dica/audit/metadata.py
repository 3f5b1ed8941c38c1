"""What other tools read about this archive, made from one source: CITATION.cff, pyproject.toml and the data catalogue.

`codemeta.json` for software catalogues, `.zenodo.json` for the repository that takes the deposit, and a Croissant
description (https://mlcommons.org/croissant/1.0) for each data set under `docs/croissant/`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import dica
from dica.data import catalog
from dica.data.paths import OWN_PREFIX
from dica.files import UserError, json_text, read_bytes
from dica.validation import load_yaml

CITATION, CROISSANT = "CITATION.cff", Path("docs/croissant")
KEYWORDS = ("deep clustering", "image clustering", "reproducibility", "Snakemake", "DVC", "PyTorch")
PLAIN = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
TERMS = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{name: f"cr:{name}" for name in PLAIN},
}  # the vocabulary of Croissant 1.0
FORMATS = {".gz": "application/gzip", ".xz": "application/x-xz", ".tar": "application/x-tar", ".zip": "application/zip"}
ADDRESSES = {
    "cc by 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "imagenet terms": "https://www.image-net.org/download.php",
    "images come from imagenet": "https://www.image-net.org/download.php",
    "no licence stated": "https://www.cs.toronto.edu/~kriz/cifar.html",
}  # where the conditions of a data set are to be read, by how its `licence` begins


def described(root: Path) -> dict[Path, str]:
    """Return the text of every file of metadata by its path from the project root.

    Raises
    ------
    UserError
        If CITATION.cff lacks what all of them need, or a data set states a licence without a known address.
    """
    citation = load_yaml(root / CITATION, ours=False)
    for key in ("title", "abstract", "version", "date-released", "license", "authors", "references"):
        if key not in citation:
            raise UserError(f"{CITATION}: lacks {key}; everything that describes the archive is made from it")
    if str(citation["version"]) != dica.__version__:
        raise UserError(
            f"{CITATION}: version is {citation['version']}, the package has {dica.__version__}; make them equal"
        )
    project = tomllib.loads(read_bytes(root / "pyproject.toml").decode("utf-8"))["project"]
    files: dict[Path, Any] = {
        Path("codemeta.json"): _codemeta(citation, project),
        Path(".zenodo.json"): _zenodo(citation),
    }
    entries = catalog.load(root)
    for name, entry in entries.items():
        if name.startswith(OWN_PREFIX):
            continue  # a user's own images
        files[CROISSANT / f"{name}.json"] = _croissant(entry, entries, str(citation["date-released"]))
    return {path: json_text(value) for path, value in files.items()}


def _codemeta(citation: dict[str, Any], project: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the software in the terms of CodeMeta 3.0."""
    papers = [
        {"@type": "ScholarlyArticle", "name": paper["title"], "url": paper["url"], "datePublished": str(paper["year"])}
        for paper in citation["references"]
    ]
    about = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": project["name"],
        "description": citation["abstract"],
        "version": str(citation["version"]),
        "license": f"https://spdx.org/licenses/{citation['license']}",
        "author": [{"@type": "Organization", "name": author["name"]} for author in citation["authors"]],
        "datePublished": str(citation["date-released"]),
        "keywords": list(KEYWORDS),
        "programmingLanguage": "Python",
        "runtimePlatform": f"Python {project['requires-python']}",
        "softwareRequirements": project["dependencies"],
        "referencePublication": papers,
    }
    return about | ({"codeRepository": citation["repository-code"]} if "repository-code" in citation else {})


def _zenodo(citation: dict[str, Any]) -> dict[str, Any]:
    """Return what Zenodo reads when it takes the archive."""
    related = [
        {"identifier": paper["url"], "relation": "references", "resource_type": "publication"}
        for paper in citation["references"]
    ]
    return {
        "title": citation["title"],
        "description": citation["abstract"],
        "upload_type": "software",
        "version": str(citation["version"]),
        "publication_date": str(citation["date-released"]),
        "creators": [{"name": author["name"]} for author in citation["authors"]],
        "license": citation["license"],
        "access_right": "open",
        "keywords": list(KEYWORDS),
        "related_identifiers": related,
    }


def _croissant(entry: dict[str, Any], entries: dict[str, dict[str, Any]], date: str) -> dict[str, Any]:
    """Return a data set in Croissant 1.0: its files (those of the first source that has any) and splits."""
    name, licence = entry["name"], entry["licence"]
    if licence.startswith("as "):
        licence = entries[licence.removeprefix("as ")]["licence"]
    pages = [url for start, url in ADDRESSES.items() if licence.lower().startswith(start)]
    if not pages:
        raise UserError(f"params/datasets.yaml: {name}.licence: {licence!r} has no address in dica.audit.metadata")
    kind = f"{entry['image_size']} x {entry['image_size']} pixels, {entry['channels']} channel(s)"
    text = f"{entry['label']}: {entry['num_classes']} classes, {kind}. {entry.get('note', '')}".strip()
    fields = [
        {"@type": "cr:Field", "@id": f"splits/{key}", "name": f"splits/{key}", "dataType": kind}
        for key, kind in (("split", "sc:Text"), ("images", "sc:Integer"))
    ]
    splits = {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "key": {"@id": "splits/split"},
        "field": fields,
        "data": [{"splits/split": split, "splits/images": count} for split, count in entry["splits"].items()],
    }
    about = {
        "@context": TERMS,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{text} Conditions: {licence}.",
        "citeAs": entry["citation"],
        "license": pages[0],
        "url": pages[0],
        "version": "1.0.0",
        "datePublished": date,
        "creator": {"@type": "sc:Organization", "name": entry["citation"].split(", ", 1)[0]},
    }
    sources = [source["files"] for source in entry["sources"] if source.get("files")]
    files = [_file(file) for file in sources[0]] if sources else []
    return about | ({"distribution": files} if files else {}) | {"recordSet": [splits]}


def _file(file: dict[str, Any]) -> dict[str, Any]:
    """Return one archive of a source; one that nobody serves has its name for an address."""
    digests = {key: file[key] for key in ("sha256", "md5") if key in file}
    about = {
        "@type": "cr:FileObject",
        "@id": file["file"],
        "name": file["file"],
        "contentUrl": file.get("url", file["file"]),
        "encodingFormat": FORMATS.get(Path(file["file"]).suffix, "application/octet-stream"),
    }
    return about | ({"contentSize": f"{file['size']} B"} if "size" in file else {}) | digests
