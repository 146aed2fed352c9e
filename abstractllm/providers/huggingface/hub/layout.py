"""Which files of a model's repository are needed, how its cache folder is called, and whether it is whole.

The layout is the hub's own: a folder for each repository with `blobs`, `snapshots` whose files are links to them, and
`refs` from branches and tags to commits.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from abstractllm.errors import ModelNotFoundError

__all__ = ["folder_name", "is_whole", "marker", "markers", "model_name", "needed", "resolved"]

_MARKER = ".incomplete"
_PREFIX = "models--"
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?")
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = ".safetensors.index.json"
_INDEXES = ".index.json"
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".codes")
_TEMPLATES = "additional_chat_templates/"


def folder_name(model: str) -> str:
    """The name of a model's folder in the cache."""
    return _PREFIX + model.replace("/", "--")


def model_name(folder: str) -> str | None:
    """The name of the model in a folder; None if the folder is not a model's."""
    name = folder.removeprefix(_PREFIX).replace("--", "/", 1)
    return name if folder.startswith(_PREFIX) and _NAME.fullmatch(name) else None


def marker(folder: Path, commit: str) -> Path:
    """The file in a model's folder that is there while a download of a commit has begun and not ended."""
    return folder / f"{commit}{_MARKER}"


def markers(folder: Path) -> list[Path]:
    """All such files of a model; a file's stem is the commit, its content the revision that was asked for."""
    return sorted(folder.glob(f"*{_MARKER}"))


def needed(
    names: Collection[str], read: Callable[[str], bytes | None], *, code: bool = False
) -> tuple[list[str], bool]:
    """The files that loading the model takes: configuration, tokenizer, templates and one set of safetensors.

    Which weights these are is said by files among them, so the answer may grow: as transformers does, it takes the file
    that the configuration names, else `model.safetensors`, else the shards that its index lists.

    Args:
        names: The repository's files.
        read: Gives the content of a file, or None while it is not there.
        code: Whether the model's own Python code is needed.

    Returns:
        The files, and whether that is all: if not, ask again once these are there.

    Raises:
        ModelNotFoundError: If there are no such weights, or no configuration.
        ValueError: If a file is not what it must be.
    """
    found = sorted(name for name in names if _is_small(name, code))
    if _CONFIG not in names:
        raise ModelNotFoundError(f"there is no {_CONFIG}", field="model")
    config = read(_CONFIG)
    if config is None:
        return found, False
    named = _object(config).get("transformers_weights")
    choice = [named] if isinstance(named, str) else [_WEIGHTS, _WEIGHTS + _INDEXES]
    entry = next((name for name in choice if name in names and name.endswith((".safetensors", _INDEX))), None)
    if entry is None:
        raise ModelNotFoundError(f"there are no weights in safetensors: no {' and no '.join(choice)}", field="model")
    found.append(entry)
    if not entry.endswith(_INDEX):
        return found, True
    index = read(entry)
    if index is None:
        return found, False
    shards = _object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{entry} has no weight_map")
    return [*found, *sorted(set(shards.values()))], True


def is_whole(root: Path, snapshot: Path) -> bool:
    """Whether a snapshot has all that loading it takes, and no download of it has broken off.

    Args:
        root: The cache's root; a link that leads out of it counts as nothing.
        snapshot: A folder within `snapshots`.
    """
    if marker(snapshot.parent.parent, snapshot.name).exists():
        return False
    names: set[str] = set()
    for folder, _, files in os.walk(snapshot):
        for file in files:
            path = Path(folder, file)
            if resolved(root, path) is None:
                return False
            names.add(path.relative_to(snapshot).as_posix())
    try:
        wanted, known = needed(names, lambda name: (snapshot / name).read_bytes())
    except (ModelNotFoundError, OSError, ValueError):
        return False
    return known and names.issuperset(wanted)


def resolved(root: Path, path: Path) -> Path | None:
    """The file behind a link; None if there is none, or it is not within the cache."""
    target = Path(os.path.realpath(path))
    return target if target.is_file() and target.is_relative_to(os.path.realpath(root)) else None


def _is_small(name: str, code: bool) -> bool:
    if name.startswith(_TEMPLATES):
        return name.endswith(".jinja")
    if "/" in name:
        return code and name.endswith(".py")
    return name.endswith((*_SUFFIXES, ".py") if code else _SUFFIXES) and not name.endswith(_INDEXES)


def _object(text: bytes) -> dict[str, object]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("a configuration is no JSON object")
    return found
