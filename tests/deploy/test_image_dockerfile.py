"""The Dockerfile as it is written: users, volumes, labels, the build context, and what each image starts with."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.dockerfile import ROOT, STEPS, TEXT, VARIANTS, argument, base, environment, last, parse, stage
from tools.images.variants import IMAGES

FINAL = stage("")


def test_one_build_argument_chooses_the_image() -> None:
    assert argument("VARIANT") in VARIANTS
    assert base("") == "${VARIANT}"
    assert base("build") == "${VARIANT}-build"
    for variant in VARIANTS:
        assert base(f"{variant}-build") == variant
    assert {image.name for image in IMAGES} == set(VARIANTS)


def test_base_images_are_named_by_a_version_and_can_be_given_a_digest() -> None:
    assert (base("cpu"), base("slim"), base("cuda")) == ("${PYTHON_BASE}", "${PYTHON_BASE}", "${CUDA_BASE}")
    # Both stages of an image are built from the same.
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", argument("PYTHON_BASE"))
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04(@sha256:[0-9a-f]{64})?", argument("CUDA_BASE"))
    # Ubuntu 24.04 comes with Python 3.12.
    assert {image.name: image.python for image in IMAGES} == {"cpu": "3.11", "slim": "3.11", "cuda": "3.12"}


def test_image_for_gpus_has_the_cuda_that_pytorch_is_built_for_and_a_compiler_for_triton() -> None:
    lock = (ROOT / "deploy/image/locks/cuda.txt").read_text("utf-8")
    runtime = re.search(r"^nvidia-cuda-runtime==(\d+\.\d+)\.", lock, re.MULTILINE)
    assert runtime is not None
    assert argument("CUDA_BASE").startswith(f"nvidia/cuda:{runtime[1]}.")
    assert re.search(r"\bgcc libc6-dev python3 python3-dev\b", next(step.value for step in stage("cuda")))


def test_image_for_cpus_hides_gpus_whose_libraries_it_lacks() -> None:
    assert environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment("cuda")


def test_server_does_not_run_as_root() -> None:
    user, _, group = last("USER").value.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    # Nothing changes that afterwards, and nothing of the last stage runs as the user.
    keywords = [step.keyword for step in FINAL]
    assert "RUN" not in keywords[keywords.index("USER") :]


def test_all_that_is_written_is_in_the_volume() -> None:
    home = last("WORKDIR").value
    [volume] = last("VOLUME").words
    assert volume == f"{home}/.cache/abstractllm"
    assert environment("cpu")["HOME"] == home
    for name in ("TMPDIR", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
        assert environment("cuda")[name].startswith(volume)
    # A folder for temporary files must be there; a volume that is mounted is empty.
    assert environment("cuda")["TMPDIR"] == volume


def test_server_is_process_one_and_is_ended_by_sigterm() -> None:
    assert last("ENTRYPOINT").words == ["/opt/abstractllm/bin/abstractllm"]
    assert last("CMD").words[0] == "serve"
    assert last("STOPSIGNAL").value == "SIGTERM"
    assert set(last("EXPOSE").value.split()) == {"50051", "50052", "9464"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_image_has_a_configuration_of_its_own_to_begin_with(variant: str) -> None:
    copied = [step.value.split() for step in stage("", variant) if step.keyword == "COPY"]
    assert [f"deploy/image/llms/{variant}.yaml", last("CMD").words[-1]] in copied
    file = ROOT / f"deploy/image/llms/{variant}.yaml"
    llms = yaml.safe_load(file.read_text("utf-8"))["llms"].values()
    assert ("huggingface" in {llm["provider"] for llm in llms}) == (variant != "slim")
    checked = subprocess.run(
        [sys.executable, "-m", "abstractllm_cli", "serve", "--check", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_labels_name_version_revision_and_licence() -> None:
    names = {name.removeprefix("org.opencontainers.image.") for name in last("LABEL").assignments}
    assert names == {"title", "description", "version", "revision", "licenses"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for name in ("VARIANT", "VERSION", "REVISION", "SOURCE_DATE_EPOCH"):
        assert f"--build-arg {name}=" in makefile
        assert any(step.keyword == "ARG" and step.value.partition("=")[0] == name for step in STEPS)


def test_everything_from_an_index_is_held_to_its_hash() -> None:
    installs = [
        part for step in stage("build") for part in step.value.split("&&") if re.search(r"\bpip\b.* install ", part)
    ]
    indexed = [part for part in installs if "--no-index" not in part]
    assert len(indexed) == 2
    assert all("--require-hashes --no-deps --only-binary :all:" in part for part in indexed)
    assert all("deploy/image/locks/" in part for part in indexed)


def test_build_context_holds_what_is_copied() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    for variant in VARIANTS:
        for step in parse(TEXT.replace("${VARIANT}", variant)):
            if step.keyword == "COPY" and not step.value.startswith("--from"):
                for source in step.value.split()[:-1]:
                    assert (ROOT / source).exists()
                    assert any(source == name or source.startswith(f"{name}/") for name in allowed)


def test_files_of_the_image_are_tracked_by_nobody_else() -> None:
    """The build would copy a stray file of deploy/image into a layer that the image does not need."""
    known = {"absent_cuda.py", "healthcheck.py", "llms", "locks"}
    assert {path.name for path in Path(ROOT / "deploy/image").iterdir()} - {"__pycache__"} == known
