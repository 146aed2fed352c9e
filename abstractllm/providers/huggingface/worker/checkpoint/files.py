"""The files of a checkpoint, looked at before anything is loaded: what is missing is named."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from abstractllm.errors import ModelLoadError, ModelNotFoundError
from abstractllm.providers.huggingface.hub.layout import (
    folder_name,
    needed_files,
    no_directory_error,
    snapshot_folder,
)
from abstractllm.providers.huggingface.protocol.messages import Load

__all__ = [
    "check_files",
    "checkpoint_folder",
    "file_names",
    "integer_tensors",
    "is_embedding_model",
    "tensor_values",
    "weight_files",
]

_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
"""The names of safetensors."""

_OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz", ".pkl")
"""Endings of weights that are not read: pickled ones may run code, the others are of other programs."""
_GENERATION = "generation_config.json"
_OF_A_TOKENIZER = ("tokenizer.json", "tokenizer.model")
_POINTER = b"version https://git-lfs.github.com/spec/"
"""The beginning of the file that git keeps in place of a large one."""
_NAMED_FILES = 3
"""Names in an error message, at most."""


def checkpoint_folder(settings: Load) -> Path:
    """Returns the folder of the model's files; of a model of the hub, it is there once a file is in the cache."""
    if settings.is_directory:
        return Path(settings.model)
    return snapshot_folder(Path(settings.cache_dir, folder_name(settings.model)), settings.revision or "main")


def file_names(folder: Path) -> set[str]:
    """Returns the files below a folder, relative to it; none if there is no such folder."""
    return {
        Path(parent, file).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder)
        for file in files
        if Path(parent, file).exists()  # a link in the cache may lead nowhere
    }


def check_files(folder: Path, model: str) -> None:
    """Checks that the files that loading takes are there, and that the weights are whole.

    Args:
        folder: The folder of the checkpoint.
        model: The model's name in messages.

    Raises:
        ModelNotFoundError: If a file is missing; the message names it.
        ModelLoadError: If a file is malformed, or shorter than it says.
    """
    if not folder.is_dir():
        raise no_directory_error(str(folder))
    names = file_names(folder)
    files = weight_files(folder, model)
    if missing := [path.name for path in files if path.relative_to(folder).as_posix() not in names]:
        listed = ", ".join(missing[:_NAMED_FILES])
        raise ModelNotFoundError(
            f"model {model}: {len(missing)} of its {len(files)} files of weights are missing from {folder}: {listed}",
            field="model",
        )
    needed = [*files, *(folder / name for name in names if name.endswith(_OF_A_TOKENIZER))]
    if pointers := sorted(path.name for path in needed if _is_pointer(path)):
        raise ModelNotFoundError(
            f"model {model}: {len(pointers)} of its files in {folder} are pointers of Git LFS, whose content is not "
            f"there (git lfs pull fetches it): {', '.join(pointers[:_NAMED_FILES])}",
            field="model",
        )
    if _GENERATION in names:
        _check_generation_config(folder / _GENERATION, model)
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"model {model}: {path.name} is damaged: {error}", field="model") from error


def _is_pointer(path: Path) -> bool:
    """Returns True if a file stands for one that Git LFS has not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:  # what cannot be read is found when it is needed
        return False


def _check_generation_config(path: Path, model: str) -> None:
    """Checks that a generation configuration can be read: transformers would go on without it, and without a word."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"model {model}: {path.name} cannot be read: {error}", field="model") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"model {model}: {path.name} is not a JSON object", field="model")


def weight_files(folder: Path, model: str) -> list[Path]:
    """Returns the paths of the files of weights: the one file, or the shards that its index names.

    Raises:
        ModelNotFoundError: If there is no configuration, or there are no weights in safetensors.
        ModelLoadError: If the configuration or the index is malformed.
    """
    names = file_names(folder)
    try:
        files, _ = needed_files(names, lambda name: (folder / name).read_bytes())
    except ModelNotFoundError as error:
        where = f"model {model}: {error.message} in {folder}{_other_formats(names)}"
        raise ModelNotFoundError(where, field="model") from error
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"model {model}: config.json, or the index of its weights, cannot be read: {error}", field="model"
        ) from error
    return [folder / name for name in files if name.endswith(".safetensors")]


def is_embedding_model(folder: Path) -> bool:
    """Returns True if the folder is of a sentence-transformers model that pools the hidden states of a text."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        return any("pooling" in str(module["type"]).lower() for module in modules)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def integer_tensors(files: Collection[Path]) -> Iterator[str]:
    """Yields the names of the tensors of whole numbers in the files."""
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 # it is no dictionary
                if file.get_slice(name).get_dtype() in _INTEGERS:
                    yield name


def tensor_values(files: Collection[Path], key: str) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Yields the shape of each tensor in the files whose name ends in a key, and True if all its numbers are zero."""
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 # it is no dictionary
                if name == key or key.endswith(f".{name}") or name.endswith(f".{key}"):
                    tensor = file.get_tensor(name)
                    yield tuple(tensor.shape), not tensor.any().item()


def _other_formats(names: Collection[str]) -> str:
    """Returns a remark on weights in formats that are not read; empty if there are none."""
    others = sorted(name for name in names if name.endswith(_OTHER_FORMATS))
    if not others:
        return ""
    return f"; {', '.join(others[:_NAMED_FILES])} cannot be read: only safetensors are, so convert it"
