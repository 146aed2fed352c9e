"""The Ray of these tests: one for all, started by the library itself as it starts one for a server."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from abstractllm.providers.ray.cluster import cluster
from abstractllm.providers.ray.config import ReplicaKeys

PLUGIN = Path(__file__).with_name("plugin")
ROOT = PLUGIN.parents[2]


@contextmanager
def running_ray(cpus: int = 8) -> Iterator[str]:
    """Starts a Ray with as many CPUs as it is told, whatever the machine has; gives its address."""
    folder = tempfile.mkdtemp(prefix="ray")  # the paths of its sockets have a hundred bytes at most
    with pytest.MonkeyPatch.context() as patch:
        python_path = [str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
            "RAY_TMPDIR": folder,
            # A machine of tests is full of what others do on it.
            "RAY_memory_usage_threshold": "1",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.syspath_prepend(str(PLUGIN))
        connection = cluster.join(ReplicaKeys(ray_cpus=cpus, ray_address="local"))
        try:
            import ray

            yield str(ray.get_runtime_context().gcs_address)
        finally:
            with warnings.catch_warnings():
                # Ray kills the processes that it has started here, and leaves their objects to the collector.
                warnings.simplefilter("ignore", ResourceWarning)
                cluster.leave(connection)
                gc.collect()
            assert not cluster._users, "a test has left an LLM open, which keeps this Ray running"
            shutil.rmtree(folder, ignore_errors=True)
            sys.modules.pop("ray_test_providers", None)
