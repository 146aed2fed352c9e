"""The locks of the images: they follow from the pins, and the check tells when they do not."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT
from tests.deploy.index_files import missing_files
from tools.images import locks
from tools.images.variants import ALL, IMAGES, MACHINES, Variant, pins


@pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.name)
def test_lock_follows_from_the_pins_and_the_extras(variant: Variant) -> None:
    assert locks.faults(variant) == []


@pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.name)
def test_lock_holds_names_versions_and_hashes_alone(variant: Variant) -> None:
    text = variant.lock.read_text("utf-8")
    assert text.startswith("# ")
    assert "://" not in text
    assert locks.parse(text, "lock") == locks.read(variant)
    assert locks.render(variant, locks.read(variant)) == text
    for entry in locks.read(variant):
        assert entry.version == pins()[entry.name]
        assert len(set(entry.hashes)) == len(entry.hashes) >= 1


def test_images_differ_in_what_they_are_for() -> None:
    held = {variant.name: {entry.name for entry in locks.read(variant)} for variant in IMAGES}
    assert held["slim"] < held["cpu"] < held["cuda"]
    assert {"openai", "anthropic", "ollama", "grpcio"} <= held["slim"]
    assert not {"torch", "transformers", "numpy", "psutil"} & held["slim"]
    assert {"nvidia-cuda-runtime", "nvidia-cuda-cupti"} == {
        name for name in held["cpu"] if "cu" in name and "nv" in name
    }
    assert {"triton", "nvidia-cublas", "nvidia-nccl-cu13"} <= held["cuda"]


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> list[str]:
    """The faults of a lock in which something was replaced."""
    monkeypatch.setattr("tools.images.variants.LOCKS", tmp_path / "deploy/image/locks")
    monkeypatch.setattr(locks, "ROOT", tmp_path)
    slim = IMAGES[0]
    text = (ROOT / "deploy/image/locks/slim.txt").read_text("utf-8")
    assert old in text
    slim.lock.parent.mkdir(parents=True)
    slim.lock.write_text(text.replace(old, new, 1), "utf-8")
    return locks.faults(slim)


def test_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = pins()["grpcio"]
    faults = planted(tmp_path, monkeypatch, f"\ngrpcio=={version} ", "\ngrpcio==1.0.0 ")
    assert faults == [f"deploy/image/locks/slim.txt: grpcio is locked at 1.0.0; constraints.txt says {version}"]


def test_what_is_missing_or_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = pins()["numpy"]
    faults = planted(tmp_path, monkeypatch, f"\nopenai=={pins()['openai']} ", f"\nnumpy=={version} ")
    assert {fault.partition(": ")[2] for fault in faults} == {
        f"{fault} on {machine}"
        for machine in MACHINES
        for fault in ("openai is missing, which is needed", "numpy is not needed")
    }


@pytest.mark.parametrize(
    "line", ["grpcio>=1.85", "grpcio==1.85.1", "https://index.example/grpcio.whl --hash=sha256:00"]
)
def test_anything_but_hashes_is_told(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [fault] = planted(tmp_path, monkeypatch, "# What", f"{line}\n# What")
    assert "is not name==version with sha256 hashes" in fault


def test_a_new_dependency_without_a_lock_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = dataclasses.replace(IMAGES[0], extras=(*IMAGES[0].extras, "bench"))
    assert any("psutil is missing" in fault for fault in locks.faults(grown))


@pytest.mark.timeout(600)
def test_index_has_the_files_of_the_image_for_gpus() -> None:
    """The other two are installed, or linked, by their own tests; this one is gigabytes."""
    [cuda] = [variant for variant in IMAGES if variant.name == "cuda"]
    assert missing_files(cuda, "x86_64") == []


def test_the_command_checks_without_a_network() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.images.locks", "--check"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "UV_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
