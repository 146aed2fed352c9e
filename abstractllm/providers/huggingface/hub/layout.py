"""The layout of the cache: the names of folders, the files that loading a model takes, and models that are whole.

It is the hub's: a folder for each repository with `blobs`, `snapshots` whose files are links to them, and
`refs` from branches and tags to commits.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from abstractllm.errors import ModelNotFoundError

__all__ = [
    "folder_name",
    "is_whole",
    "marker",
    "markers",
    "model_name",
    "needed_files",
    "no_directory_error",
    "resolved",
    "snapshot_folder",
]

_MARKER = ".incomplete"
_PREFIX = "models--"
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?")
_CONFIG = "config.json"
_ADAPTER = "adapter_config.json"
_WEIGHTS = "model.safetensors"
_INDEX = ".safetensors.index.json"
_INDEX_ENDING = ".index.json"
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".codes")
_TEMPLATES = "additional_chat_templates/"


def folder_name(model: str) -> str:
    """Returns the name of a model's folder in the cache."""
    return _PREFIX + model.replace("/", "--")


def model_name(folder: str) -> str | None:
    """Returns the name of the model in a folder; None if the folder is not a model's."""
    name = folder.removeprefix(_PREFIX).replace("--", "/", 1)
    return name if folder.startswith(_PREFIX) and _NAME.fullmatch(name) else None


def no_directory_error(path: str) -> ModelNotFoundError:
    """Returns the error for a model's path that leads to no directory."""
    hint = ""
    if Path(path).is_file():
        hint = ": it is a file, and a model is the directory that holds its config.json and its weights in safetensors"
    return ModelNotFoundError(f"model: there is no directory {path}{hint}", field="model")


def marker(folder: Path, commit: str) -> Path:
    """Returns the path of the file that is there while a download of a commit has begun and not ended."""
    return folder / f"{commit}{_MARKER}"


def markers(folder: Path) -> list[Path]:
    """Returns the markers of a model; a marker's stem is the commit, its content the revision that was wanted."""
    return sorted(folder.glob(f"*{_MARKER}"))


def snapshot_folder(folder: Path, revision: str) -> Path:
    """Returns the folder of a revision's files, which is there only if the revision is in the cache.

    Args:
        folder: The model's folder.
        revision: A branch, tag or commit.
    """
    try:
        commit = (folder / "refs" / revision).read_text("ascii").strip()
    except (OSError, ValueError):  # it is a commit, or not in the cache
        commit = revision
    return folder / "snapshots" / commit


def needed_files(
    names: Collection[str], read: Callable[[str], bytes | None], *, code: bool = False
) -> tuple[list[str], bool]:
    """Returns the files that loading the model takes: configuration, tokenizer, templates, one set of safetensors.

    The weights are named by files among these, so the answer may grow: they are, as for transformers, the file that the
    configuration names, else `model.safetensors`, else the shards that its index lists.

    Args:
        names: The repository's files.
        read: Gives the content of a file, or None while it is not there.
        code: True if the Python code that comes with the model is needed.

    Returns:
        The files, and True if these are all; if not, call again once these are there.

    Raises:
        ModelNotFoundError: If there are no such weights, or no configuration.
        ValueError: If a file is malformed.
    """
    files = sorted(name for name in names if _is_small(name, code))
    if _CONFIG not in names:
        adapter = ": it is an adapter, which is loaded with the model that it names" if _ADAPTER in names else ""
        raise ModelNotFoundError(f"there is no {_CONFIG}{adapter}", field="model")
    config = read(_CONFIG)
    if config is None:
        return files, False
    named = _object(config).get("transformers_weights")
    choice = [named] if isinstance(named, str) else [_WEIGHTS, _WEIGHTS + _INDEX_ENDING]
    entry = next((name for name in choice if name in names and name.endswith((".safetensors", _INDEX))), None)
    if entry is None:
        raise ModelNotFoundError(f"there are no weights in safetensors: no {' and no '.join(choice)}", field="model")
    files.append(entry)
    if not entry.endswith(_INDEX):
        return files, True
    index = read(entry)
    if index is None:
        return files, False
    shards = _object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{entry} has no weight_map")
    return [*files, *sorted(set(shards.values()))], True


def is_whole(root: Path, snapshot: Path) -> bool:
    """Returns True if a snapshot has all that loading it takes, and no download of it has broken off.

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
        wanted, is_complete = needed_files(names, lambda name: (snapshot / name).read_bytes())
    except (ModelNotFoundError, OSError, ValueError):
        return False
    return is_complete and names.issuperset(wanted)


def resolved(root: Path, path: Path) -> Path | None:
    """Returns the file that a path leads to; None if there is no such file, or if it is outside of the cache."""
    target = Path(os.path.realpath(path))
    return target if target.is_file() and target.is_relative_to(os.path.realpath(root)) else None


def _is_small(name: str, code: bool) -> bool:
    if name.startswith(_TEMPLATES):
        return name.endswith(".jinja")
    if "/" in name:
        return code and name.endswith(".py")
    return name.endswith((*_SUFFIXES, ".py") if code else _SUFFIXES) and not name.endswith(_INDEX_ENDING)


def _object(text: bytes) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a configuration is not a JSON object")
    return value
