"""Downloads that go wrong: each failure is one documented error, and nothing half-done shows as whole."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from abstractllm import (
    AbstractLLMError,
    ConfigurationError,
    ModelNotFoundError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitedError,
)
from abstractllm.providers.huggingface.hub.downloader.messages import Pull
from tests.fake_hub import TOKEN, FakeHub, Refusal, model_files
from tests.pull_support import (
    HANG,
    MODEL,
    begun,
    break_off,
    downloading_processes,
    listed,
    llm_of,
    pull,
    snapshot,
    wanted,
)
from tests.waiting import until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache"


def refusing(part: str, refusal: Refusal) -> Any:
    return lambda request: refusal if part in request.path else None


@pytest.mark.parametrize("part", ["/api/", "/resolve/"])
@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(401, "GatedRepo"), ProviderCredentialsError),
        (Refusal(403, "GatedRepo"), ProviderCredentialsError),
        (Refusal(401), ProviderCredentialsError),
        (Refusal(403), ProviderCredentialsError),
        (Refusal(401, "RepoNotFound"), ModelNotFoundError),
        (Refusal(404, "RepoNotFound"), ModelNotFoundError),
        (Refusal(404, "RevisionNotFound"), ModelNotFoundError),
        (Refusal(404, "EntryNotFound"), ModelNotFoundError),
        (Refusal(404), ModelNotFoundError),
        (Refusal(429, headers={"Retry-After": "70"}), RateLimitedError),
        (Refusal(429, headers={"RateLimit": '"api";r=0;t=70'}), RateLimitedError),
        (Refusal(500), ProviderUnavailableError),
        (Refusal(503), ProviderUnavailableError),
    ],
)
async def test_a_refusal_of_the_hub_is_one_documented_error(
    forked: FakeHub, root: Path, part: str, refusal: Refusal, kind: type[AbstractLLMError]
) -> None:
    forked.add(MODEL)
    forked.refuse = refusing(part, refusal)
    async with llm_of(root) as llm:
        with pytest.raises(kind) as caught:
            await pull(llm)
    error = caught.value
    assert type(error) is kind and MODEL in error.message
    assert error.upstream_status == refusal.status
    assert error.retry_after == (70 if kind is RateLimitedError else None)
    assert (error.provider, error.model) == ("huggingface", MODEL)
    assert TOKEN not in error.message and "signature" not in error.message
    assert listed(root).get(MODEL, True)


async def failing(llm: Any, kind: type[AbstractLLMError]) -> AbstractLLMError:
    """The error that a download ends with."""
    with pytest.raises(AbstractLLMError) as caught:
        await pull(llm)
    assert type(caught.value) is kind, caught.value
    assert MODEL in caught.value.message and TOKEN not in caught.value.message
    return caught.value


async def test_a_hub_that_is_down_is_unavailable(hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    async with llm_of(root) as llm:
        assert (await failing(llm, ProviderUnavailableError)).retryable
    assert listed(root) == {}


async def test_what_is_whole_is_done_though_the_hub_is_down(forked: FakeHub, root: Path) -> None:
    forked.add(MODEL)
    async with llm_of(root) as llm:
        first = await pull(llm)
        forked.refuse = lambda request: Refusal(503)
        assert await pull(llm) == first[-1:]


@pytest.mark.parametrize("by", ["local_files_only", "HF_HUB_OFFLINE"])
async def test_offline_an_error_says_what_is_missing(
    hub: FakeHub, root: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 2_000_000
    async with llm_of(root) as llm:
        await break_off(llm)
        await until(lambda: not hub.open)
    before = len(hub.requests)
    if by == "HF_HUB_OFFLINE":
        monkeypatch.setenv(by, "1")
    async with llm_of(root, **({by: True} if by == "local_files_only" else {})) as llm:
        error = await failing(llm, ModelNotFoundError)
    assert "is not in the cache" in error.message and by in error.message
    assert "a download of it has broken off" in error.message
    assert len(hub.requests) == before
    assert listed(root) == {MODEL: True}


async def test_offline_a_whole_model_is_done(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    async with llm_of(root) as llm:
        first = await pull(llm)
    before = len(hub.requests)
    for revision in ("main", commit):
        async with llm_of(root, local_files_only=True, revision=revision) as llm:
            assert await pull(llm) == first[-1:]
    assert len(hub.requests) == before


@pytest.mark.parametrize("breaks", [[60_000], [60_000, 60_000, 60_000], [0, 0, 100]])
async def test_a_connection_that_breaks_is_gone_on_with(forked: FakeHub, root: Path, breaks: list[int]) -> None:
    commit = forked.add(MODEL)
    forked.break_after = breaks.copy()
    async with llm_of(root) as llm:
        assert (await pull(llm))[-1].done
    assert forked.break_after == []
    assert snapshot(root, commit) == wanted(model_files())
    assert forked.sent <= sum(map(len, wanted(model_files()).values()))  # nothing came twice


async def test_a_connection_that_breaks_all_the_time_is_unavailable(forked: FakeHub, root: Path) -> None:
    commit = forked.add(MODEL)
    forked.break_after = [50_000, *[0] * 50]
    async with llm_of(root) as llm:
        await failing(llm, ProviderUnavailableError)
        assert listed(root) == {MODEL: True}
        forked.break_after = []
        assert (await pull(llm))[-1].done
    assert snapshot(root, commit) == wanted(model_files())


async def test_a_storage_without_ranges_begins_anew(forked: FakeHub, root: Path) -> None:
    commit = forked.add(MODEL)
    forked.ranges = False
    forked.break_after = [60_000]
    async with llm_of(root) as llm:
        assert (await pull(llm))[-1].done
    assert snapshot(root, commit) == wanted(model_files())


async def test_a_short_pause_that_the_hub_asks_for_is_kept(forked: FakeHub, root: Path) -> None:
    forked.add(MODEL)
    left = [1, 1]
    forked.refuse = lambda request: (
        Refusal(429, headers={"Retry-After": "0"}) if "storage" in request.path and left and left.pop() else None
    )
    async with llm_of(root) as llm:
        assert (await pull(llm))[-1].done
    assert not left


async def test_content_that_is_not_what_the_hub_says_is_fetched_again(forked: FakeHub, root: Path) -> None:
    commit = forked.add(MODEL)
    forked.corrupt = 1
    async with llm_of(root) as llm:
        assert (await pull(llm))[-1].done
    assert snapshot(root, commit) == wanted(model_files())


async def test_content_that_is_never_what_the_hub_says_is_refused(forked: FakeHub, root: Path) -> None:
    forked.add(MODEL)
    forked.corrupt = 100
    async with llm_of(root) as llm:
        assert "hash" in (await failing(llm, ProviderProtocolError)).message
    assert listed(root) == {MODEL: True}


@pytest.mark.parametrize(
    ("missing", "named"),
    [("model.safetensors", "no model.safetensors"), ("config.json", "config.json")],
)
async def test_a_repository_that_cannot_be_loaded_is_not_fetched(
    forked: FakeHub, root: Path, missing: str, named: str
) -> None:
    files = model_files()
    del files[missing]
    forked.add(MODEL, files)
    async with llm_of(root) as llm:
        assert named in (await failing(llm, ModelNotFoundError)).message
    assert forked.sent == 0 or missing == "model.safetensors"


async def test_an_index_that_lists_what_is_not_there_is_refused(forked: FakeHub, root: Path) -> None:
    files = model_files(shards=3)
    del files["model-00002-of-00003.safetensors"]
    forked.add(MODEL, files)
    async with llm_of(root) as llm:
        error = await failing(llm, ModelNotFoundError)
    assert "model-00002-of-00003.safetensors" in error.message


@pytest.mark.parametrize("name", ["no/such/name", "a b", "a..b", "-x", "x" * 120])
async def test_what_is_no_name_on_the_hub_is_refused(forked: FakeHub, root: Path, name: str) -> None:
    async with llm_of(root, model=name) as llm:
        with pytest.raises((ConfigurationError, ModelNotFoundError)):
            await pull(llm)
    assert listed(root) == {}


async def test_a_download_that_is_killed_is_unavailable_and_gone_on_with(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 2_000_000
    async with llm_of(root) as llm:
        async with asyncio.timeout(HANG), aclosing(llm.pull()) as reports:
            await begun(reports)
            (child,) = downloading_processes()
            child.kill()
            with pytest.raises(ProviderUnavailableError, match="signal 9"):
                _ = [report async for report in reports]
        assert listed(root) == {MODEL: True}
        hub.pace = None
        assert (await pull(llm))[-1].done
    assert snapshot(root, commit) == wanted(model_files(weights=2_000_000))


async def test_no_token_and_no_signature_is_logged(hub: FakeHub, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.add(MODEL)
    hub.refuse = refusing("/storage/", Refusal(403))
    with caplog.at_level(logging.INFO):
        async with llm_of(root) as llm:
            await failing(llm, ProviderCredentialsError)
    assert MODEL in caplog.text
    assert TOKEN not in caplog.text and "secret-of-storage" not in caplog.text
    authorized = [request for request in hub.requests if "authorization" in request.headers]
    assert authorized and not any("storage" in request.path for request in authorized)


# What a test cannot bring about from outside.


async def test_a_missing_package_is_named(
    hub: FakeHub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of this name before the real one cannot be imported, as if it were not there."""
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError('no', name='huggingface_hub')")
    places = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", places)
    async with llm_of(root) as llm:
        with pytest.raises(ConfigurationError, match="huggingface_hub is not installed"):
            await pull(llm)


def settings(root: Path) -> Pull:
    return Pull(model=MODEL, revision="main", cache_dir=str(root), code=False, local_files_only=False)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ProviderUnavailableError, "full"),
        (errno.EDQUOT, ProviderUnavailableError, "full"),
        (errno.EACCES, ConfigurationError, "may not be written to"),
        (errno.EROFS, ConfigurationError, "may not be written to"),
    ],
)
def test_a_disk_that_does_not_take_it_is_named(
    tmp_path: Path, number: int, kind: type[AbstractLLMError], words: str
) -> None:
    from abstractllm.providers.huggingface.hub.downloader.failures import as_library_error

    error = as_library_error(settings(tmp_path), OSError(number, os.strerror(number), "blob"))
    assert type(error) is kind
    assert words in error.message and str(tmp_path) in error.message


def test_a_disk_without_room_is_found_out_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from abstractllm.providers.huggingface.hub.downloader.blob import Blob
    from abstractllm.providers.huggingface.hub.downloader.download import Download

    download = Download(settings(tmp_path), lambda report: None)
    (tmp_path / "models--org--model" / "blobs").mkdir(parents=True)
    (tmp_path / "models--org--model" / "blobs" / f"{'a' * 64}.incomplete").write_bytes(b"x" * 100)
    download._blobs = {"model.safetensors": Blob("a" * 64, 1100)}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2000, 1001, 999))  # type: ignore[attr-defined]
    with pytest.raises(ProviderUnavailableError, match="1000 bytes are to be downloaded, 999 are free"):
        download._check_room(["model.safetensors"])
