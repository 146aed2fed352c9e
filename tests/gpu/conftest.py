"""What the tests of a CUDA machine share."""

import pytest
import torch


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """Where the models lie: the first GPU, or a CPU to try the tests themselves."""
    return torch.device("cuda:0" if pytestconfig.getoption("--device") == "cuda" else "cpu")
