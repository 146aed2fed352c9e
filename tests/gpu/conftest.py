"""Fixtures of the tests of a CUDA machine."""

import pytest
import torch


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device of the models: the first GPU, or a CPU to try the tests themselves."""
    return torch.device("cuda:0" if pytestconfig.getoption("--device") == "cuda" else "cpu")
