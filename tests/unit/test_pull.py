"""Downloading a model of the hub into the cache: what is fetched, how it is told, what goes on where it stopped."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from abstractllm import ModelNotFoundError, ServerShuttingDownError, UnsupportedFeatureError
from abstractllm.providers.huggingface.hub.downloads import downloads
from abstractllm.testing import ScriptedProvider
from tests.fake_hub import FakeHub, model_files
from tests.pull_support import HANG, MODEL, begun, break_off, listed, llm_of, pull, snapshot, wanted
from tests.waiting import until


@pytest.fixture
def hub(forked: FakeHub) -> FakeHub:
    """The hub of all tests here."""
    return forked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache"


# The files that are fetched.


async def test_only_what_loading_takes_is_fetched(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    async with llm_of(root) as llm:
        await pull(llm)
    assert snapshot(root, commit) == wanted(model_files())
    assert listed(root) == {MODEL: False}
    assert (root / "models--org--model" / "refs" / "main").read_text() == commit
    assert not hub.paths("GET", "pytorch_model.bin") + hub.paths("GET", "onnx") + hub.paths("GET", "original")


async def test_shards_are_those_that_the_index_lists(hub: FakeHub, root: Path) -> None:
    files = model_files(shards=3)
    commit = hub.add(MODEL, files)
    async with llm_of(root) as llm:
        await pull(llm)
    shards = [name for name in files if name.startswith("model") and "safetensors" in name]
    assert len(shards) == 4
    assert snapshot(root, commit) == wanted(files, shards)


async def test_one_file_of_weights_goes_before_shards(hub: FakeHub, root: Path) -> None:
    files = model_files(shards=2) | {"model.safetensors": b"whole" * 1000}
    commit = hub.add(MODEL, files)
    async with llm_of(root) as llm:
        await pull(llm)
    assert snapshot(root, commit) == wanted(files)


async def test_weights_that_the_configuration_names_are_taken(hub: FakeHub, root: Path) -> None:
    files = model_files() | {
        "config.json": b'{"transformers_weights": "own.safetensors"}',
        "own.safetensors": b"o" * 3000,
    }
    commit = hub.add(MODEL, files)
    async with llm_of(root) as llm:
        await pull(llm)
    assert snapshot(root, commit) == wanted(files, ["own.safetensors"])
    assert listed(root) == {MODEL: False}


async def test_code_is_fetched_if_it_is_trusted(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    async with llm_of(root, trust_remote_code=True) as llm:
        await pull(llm)
    assert "modeling_own.py" in snapshot(root, commit)


@pytest.mark.parametrize("kind", ["tag", "commit"])
async def test_a_pinned_revision_is_fetched(hub: FakeHub, root: Path, kind: str) -> None:
    old = hub.add(MODEL, model_files(weights=2000), "v1")
    hub.add(MODEL)
    async with llm_of(root, revision="v1" if kind == "tag" else old) as llm:
        await pull(llm)
    assert snapshot(root, old) == wanted(model_files(weights=2000))
    assert [path.name for path in (root / "models--org--model" / "snapshots").iterdir()] == [old]


async def test_a_branch_that_has_moved_brings_what_is_new(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    async with llm_of(root) as llm:
        await pull(llm)
        files = model_files() | {"config.json": b'{"new": 1}'}
        commit = hub.add(MODEL, files)
        sent = hub.sent
        await pull(llm)
    assert hub.sent - sent == len(b'{"new": 1}')
    assert snapshot(root, commit) == wanted(files)
    assert listed(root) == {MODEL: False}


async def test_what_broke_off_of_a_former_commit_is_deleted_with_the_next_one(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 2_000_000
    async with llm_of(root) as llm:
        await break_off(llm)
        await until(lambda: not hub.open)
        hub.pace = None
        files = model_files(weights=3000)
        commit = hub.add(MODEL, files)
        await pull(llm)
    assert listed(root) == {MODEL: False}
    assert snapshot(root, commit) == wanted(files)
    assert left_overs(root) == []


async def test_what_broke_off_of_a_pinned_commit_is_kept_for_it(hub: FakeHub, root: Path) -> None:
    old = hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 2_000_000
    async with llm_of(root, revision=old) as llm:
        await break_off(llm)
        await until(lambda: not hub.open)
    hub.pace = None
    hub.add(MODEL, model_files(weights=3000))
    async with llm_of(root) as llm:
        await pull(llm)
    assert listed(root) == {MODEL: True}
    hub.sent = 0
    async with llm_of(root, revision=old) as llm:
        await pull(llm)
    assert hub.sent < 2_000_000
    assert listed(root) == {MODEL: False}
    assert left_overs(root) == []


def left_overs(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*.incomplete")]


async def test_what_is_whole_is_done_at_once(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    async with llm_of(root) as llm:
        first = await pull(llm)
        before = len(hub.requests)
        again = await pull(llm)
    assert again == first[-1:]
    ours = [request.path for request in hub.requests[before:] if MODEL in request.path]
    assert [path.split("/")[5] for path in ours] == ["revision", "tree"]


@pytest.mark.parametrize("model", ["demo", "DIRECTORY"])
async def test_there_is_nothing_to_do_for_a_directory(hub: FakeHub, root: Path, model: str, tmp_path: Path) -> None:
    async with llm_of(root, model.replace("DIRECTORY", str(tmp_path))) as llm:
        reports = await pull(llm)
    assert [(report.done, report.bytes_done) for report in reports] == [(True, 0)]
    assert not hub.requests and listed(root) == {}


# Reports and sharing.


async def test_reports_tell_each_file_and_the_whole(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL, model_files(shards=3))
    hub.pace = 300_000
    async with llm_of(root) as llm:
        reports = await pull(llm)
    *reports, last = reports
    files = wanted(model_files(shards=3), [name for name in model_files(shards=3) if name.startswith("model-")])
    files["model.safetensors.index.json"] = model_files(shards=3)["model.safetensors.index.json"]
    size = sum(map(len, files.values()))
    assert (last.file, last.bytes_done, last.bytes_total, last.done) == ("", size, size, True)
    assert {report.file for report in reports} == set(files)
    for name, content in files.items():
        steps = [report.file_bytes_done for report in reports if report.file == name]
        assert steps == sorted(set(steps)) and steps[-1] == len(content)
        assert {report.file_bytes_total for report in reports if report.file == name} == {len(content)}
    assert any(0 < report.file_bytes_done < report.file_bytes_total for report in reports)
    done = [report.bytes_done for report in reports]
    assert done == sorted(done) and done[-1] == size
    totals = [report.bytes_total for report in reports]
    assert totals[-1] == size and set(totals) <= {None, size}
    assert not any(report.done for report in reports)


async def test_callers_share_a_download_and_each_is_told_all(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 600_000
    async with llm_of(root) as llm, llm_of(root) as other:
        all_reports = await asyncio.gather(pull(llm), pull(llm), pull(other))
        assert len(hub.paths("GET", "/storage/")) == 2  # the weights and the tokenizer, once
        assert all(reports[-1].done for reports in all_reports)
        assert {frozenset(report.file for report in reports) for reports in all_reports} == {
            frozenset({"", *wanted(model_files())})
        }
    assert downloads.running == []


async def test_a_caller_that_comes_late_is_told_what_it_missed(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 300_000
    async with llm_of(root) as llm, asyncio.timeout(HANG), aclosing(llm.pull()) as first:
        await begun(first)
        late = await pull(llm)
        assert {report.file for report in late} == {"", *wanted(model_files())}
        assert [report async for report in first][-1].done


async def test_a_caller_that_leaves_only_detaches_itself(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 300_000
    async with llm_of(root) as llm, asyncio.timeout(HANG), aclosing(llm.pull()) as stays:
        await begun(stays)
        await break_off(llm)
        assert len(downloads.running) == 1
        assert [report async for report in stays][-1].done
    assert listed(root) == {MODEL: False}


async def test_the_last_one_leaving_stops_it_and_the_next_one_goes_on(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 2_000_000
    async with llm_of(root) as llm:
        left = await break_off(llm)
        assert 0 < left.file_bytes_done < 2_000_000
        await until(lambda: not hub.open)
        assert listed(root) == {MODEL: True}
        hub.pace, hub.sent = None, 0
        reports = await pull(llm)
    assert reports[-1].done
    assert hub.sent <= 2_000_000 - left.file_bytes_done
    assert "bytes=" in [request.headers.get("range", "") for request in hub.requests if "storage" in request.path][-1]
    assert snapshot(root, commit) == wanted(model_files(weights=2_000_000))
    assert listed(root) == {MODEL: False}


async def test_closing_the_llm_ends_its_downloads(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 100_000
    llm = llm_of(root)
    async with asyncio.timeout(HANG), aclosing(llm.pull()) as reports:
        await begun(reports)
        await llm.close_async()
        with pytest.raises(ServerShuttingDownError):
            _ = [report async for report in reports]
    await until(lambda: not hub.open)


async def test_each_download_that_closing_ends_has_an_error_of_its_own(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 100_000
    llm = llm_of(root)
    async with asyncio.timeout(HANG), aclosing(llm.pull()) as first, aclosing(llm.pull()) as second:
        await begun(first)
        await begun(second)
        await llm.close_async()
        errors = []
        for reports in (first, second):
            with pytest.raises(ServerShuttingDownError) as caught:
                _ = [report async for report in reports]
            errors.append(caught.value)
    assert errors[0] is not errors[1]


async def test_a_revision_does_not_lead_into_another_model(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    async with llm_of(root) as llm:
        await pull(llm)
    elsewhere = f"../../{(root / 'models--org--model').name}/snapshots/{commit}"
    async with llm_of(root, "org/other", revision=elsewhere, local_files_only=True) as llm:
        with pytest.raises(ModelNotFoundError, match="is not in the cache"):
            await pull(llm)


async def test_only_a_listed_model_is_downloaded(hub: FakeHub, root: Path) -> None:
    async with llm_of(root) as llm:
        with pytest.raises(ModelNotFoundError) as caught:
            await pull(llm, "org/other")
    assert (caught.value.field, caught.value.limit) == ("model", MODEL)
    assert hub.requests == []


async def test_a_provider_without_a_cache_says_so() -> None:
    with pytest.raises(UnsupportedFeatureError, match="scripted has no model cache"):
        await pull(ScriptedProvider())
