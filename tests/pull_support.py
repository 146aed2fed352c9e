"""Helpers of the tests of downloads: a hub, a cache, and the events of a download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import psutil

from abstractllm import PullProgress, create_llm
from abstractllm.providers.huggingface import HuggingFaceProvider
from tests.fake_hub import NEEDED

HANG = 60.0
"""Seconds after which a test counts as hanging."""
MODEL = "org/model"


def llm_of(root: Path, model: str = MODEL, **config: Any) -> Any:
    """A local LLM with this cache."""
    return create_llm("huggingface", model=model, cache_dir=str(root), **config)


async def pull(llm: Any, model: str | None = None) -> list[PullProgress]:
    """All reports of a download."""
    async with asyncio.timeout(HANG):
        return [report async for report in llm.pull(model)]


async def begun(reports: AsyncIterator[PullProgress]) -> PullProgress:
    """The first report of weights that have partly come."""
    async for report in reports:
        if report.file.endswith(".safetensors") and report.file_bytes_done:
            return report
    raise AssertionError("it ended without a report of its weights")


async def break_off(llm: Any) -> PullProgress:
    """Begins a download and leaves it when a part of the weights is there."""
    async with asyncio.timeout(HANG), aclosing(llm.pull()) as reports:
        return await begun(reports)


def listed(root: Path) -> dict[str, bool]:
    """The models of a cache, and whether each is partial."""
    return {model.name: model.partial for model in HuggingFaceProvider.list_cached_models(str(root))}


def downloading_processes() -> list[psutil.Process]:
    """The processes in which this one downloads now."""
    processes = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "abstractllm.providers.huggingface.hub.downloader" in process.cmdline():
                processes.append(process)
    return processes


def snapshot(root: Path, commit: str, model: str = MODEL) -> dict[str, bytes]:
    """The files of a commit in the cache."""
    folder = root / f"models--{model.replace('/', '--')}" / "snapshots" / commit
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wanted(files: dict[str, bytes], weights: Iterable[str] = ("model.safetensors",)) -> dict[str, bytes]:
    """Of a repository's files those that are needed."""
    return {name: files[name] for name in (*NEEDED, *weights)}
