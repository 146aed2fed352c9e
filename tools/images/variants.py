"""The content of each container image; the steps that make it are in the Dockerfile."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy/image/locks"
OURS = frozenset({"abstractllm-grpc", "abstractllm-client"})
MACHINES = ("x86_64", "aarch64")
"""The machines that an image can be built for, by the name that a requirement's marker has for them."""
HOSTED = ("anthropic", "ollama", "openai", "server")

CUDA = ("cuda-*", "nvidia-*", "triton")
LOADED_WITH_TORCH = ("nvidia-cuda-cupti", "nvidia-cuda-runtime")
"""Libraries of CUDA that PyTorch calls as soon as it is imported, also where there is no GPU."""


@dataclass(frozen=True)
class Variant:
    """One image, or what builds them.

    Attributes:
        name: Its name: the build argument VARIANT, and the name of its lock.
        python: The version of Python in it.
        extras: The extras of our own distribution that are installed.
        tools: Requirements beside those of the extras.
        absent: Patterns of distributions that are required but not installed.
        kept: Those that are installed although a pattern of `absent` fits.
    """

    name: str
    python: str
    extras: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def lock(self) -> Path:
        """The file with the versions and hashes of everything that is installed from a package index."""
        return LOCKS / f"{self.name}.txt"

    def leaves_out(self, name: str) -> bool:
        """Returns whether a distribution is not installed although another one requires it."""
        return name not in self.kept and any(fnmatch(name, pattern) for pattern in self.absent)

    def requirements(self) -> list[Requirement]:
        """Returns what is installed, before what that needs in turn: without our own distributions."""
        if not self.extras:
            return [Requirement(line) for line in self.tools]
        root = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        client = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
        lines = [*root["dependencies"], *client["dependencies"], *self.tools]
        for extra in self.extras:
            lines += root["optional-dependencies"][extra]
        listed = [Requirement(line) for line in lines]
        return [requirement for requirement in listed if canonicalize_name(requirement.name) not in OURS]

    def environment(self, machine: str) -> dict[str, str]:
        """Returns what the markers of requirements are evaluated with, in this image on such a machine."""
        return {
            "extra": "",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


IMAGES = (
    Variant("slim", "3.11", HOSTED),
    Variant("cpu", "3.11", (*HOSTED, "huggingface", "adapters"), absent=CUDA, kept=LOADED_WITH_TORCH),
    Variant("cuda", "3.12", (*HOSTED, "huggingface", "adapters", "gpu", "quantization")),
)
BUILD = Variant("build", "3.11", tools=("pip", "setuptools"))
"""The tools that install the rest, and build our own distributions; they stay out of the images."""
ALL = (*IMAGES, BUILD)


def pins() -> dict[str, str]:
    """Returns the version that constraints.txt names for each distribution."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    parted = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in parted}
