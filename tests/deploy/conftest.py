"""Folders for images: below the system's folder for temporary files, which the images' user may enter."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def image_folder() -> Iterator[Path]:
    """An empty folder that every user may enter; those of pytest are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)  # gigabytes
