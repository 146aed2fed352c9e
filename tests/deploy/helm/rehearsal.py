"""A pod's containers as processes of this machine, as its specification says: files, variables, users, probes.

The image's entry point and Python are those that run the tests. The volumes are folders, laid out as the kubelet lays
them out; paths of the container become paths below a folder, and its ports become free ones of this machine.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.helm.rendering import Document

SWITCHES_USERS = os.geteuid() == 0 and shutil.which("setpriv") is not None
"""True where a container runs as its own user and groups; elsewhere all are this user."""
_HOME = "/home/abstractllm"
_PROGRAMS = {
    "/opt/abstractllm/bin/abstractllm": str(Path(sys.executable).with_name("abstractllm")),
    "/opt/abstractllm/bin/python": sys.executable,
    "/opt/abstractllm/healthcheck.py": str(Path(__file__).resolve().parents[3] / "deploy/image/healthcheck.py"),
}
_PORTS = ("50051", "50052", "9464", "6000", "6001", "6002")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pod:
    """One pod.

    Args:
        spec: Its specification.
        objects: The ConfigMaps and Secrets that it names, as documents.
        folder: The place of its volumes; a short path, for the sake of unix sockets.
    """

    def __init__(self, spec: Document, objects: list[Document], folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.ports = {port: free_port() for port in _PORTS}
        self._objects = {(document["kind"], document["metadata"]["name"]): document for document in objects}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        folder.chmod(0o755)
        self._paths: dict[str, dict[str, Path]] = {}
        for container in self._containers():
            self._paths[container["name"]] = self._root(container)
        for volume in spec["volumes"]:
            self._fill(volume)

    def volume(self, name: str) -> Path:
        """The folder of a volume."""
        return self.folder / "volumes" / name

    def write(self, volume: str, files: Mapping[str, str]) -> None:
        """Puts files into a volume as the kubelet does: a new folder, then a link that is moved into place."""
        (source,) = (one for one in self.spec["volumes"] if one["name"] == volume)
        mode = (source.get("secret") or source["configMap"]).get("defaultMode", 0o644)
        group = self.spec["securityContext"].get("fsGroup", 0)
        place = self.volume(volume)
        version = place / f"..{secrets.token_hex(4)}"
        version.mkdir(parents=True)
        for name, text in files.items():
            (version / name).write_text(text)
            (version / name).chmod(mode)
            if SWITCHES_USERS:
                os.chown(version / name, 0, group)
            if not (place / name).is_symlink():
                (place / name).symlink_to(f"..data/{name}")
        link = place / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(place / "..data")

    def start(self, name: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a container, which may have run and ended before.

        Args:
            name: Its name.
            variables: What tells it of this machine's surroundings.
        """
        self._close(name)
        container = self._container(name)
        command = container.get("command") or ["/opt/abstractllm/bin/abstractllm"]
        variables = {**self.environment(name), **(variables or {})}
        words = [self.mapped(name, word) for word in [*command, *container.get("args", ())]]
        words = [re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), word) for word in words]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._paths[name].get("/tmp", self.folder)),
            # As the image has them.
            "HOME": str(self._paths[name][_HOME]),
            "ABSTRACTLLM_MONITORING": f"127.0.0.1:{self.ports['9464']}",
            "ABSTRACTLLM_HEALTH": f"127.0.0.1:{self.ports['50052']}",
            **variables,
        }
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [*self._as_user(container), *words],
                cwd=self.folder,
                env=environment,
                umask=0o022,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes[name] = process
        return process

    def environment(self, name: str) -> dict[str, str]:
        """The variables that a container gets beside those of its image; what the cluster knows is its name."""
        container = self._container(name)
        variables: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            variables |= self._secret(source["secretRef"]["name"])
        for entry in container.get("env", ()):
            source = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            variables[entry["name"]] = self.mapped(name, entry["value"]) if "value" in entry else source
        return variables

    def log(self, name: str) -> str:
        """The lines that a container has written to its standard error."""
        return (self.folder / f"{name}.log").read_text("utf-8")

    def end(self, name: str, number: int = signal.SIGTERM, timeout: float = 60) -> tuple[int, float]:
        """Sends a signal to a container, and waits for its end.

        Returns:
            Its status, and how long that took.
        """
        began = time.monotonic()
        self._processes[name].send_signal(number)
        status = self._processes[name].wait(timeout)
        return status, time.monotonic() - began

    def wait_for(self, name: str, probe: str, timeout: float = 100) -> None:
        """Waits until a container's probe says yes; fails where the container ends before."""
        end = time.monotonic() + timeout
        while not self.ask(name, probe):
            assert self._processes[name].poll() is None, self.log(name)
            assert time.monotonic() < end, f"{probe} says no for {timeout} s: {self.log(name)}"
            time.sleep(0.1)

    def ask(self, name: str, probe: str) -> bool:
        """Asks a probe of a container once, as the kubelet does."""
        question = self._container(name)[probe]
        if "exec" in question:
            words = [self.mapped(name, word) for word in question["exec"]["command"]]
            done = subprocess.run(words, capture_output=True, timeout=question["timeoutSeconds"] + 30, check=False)
            return done.returncode == 0
        asked_port = self.ports[str(question["grpc"]["port"])]
        return serves(f"127.0.0.1:{asked_port}", question["grpc"].get("service", ""), question["timeoutSeconds"])

    def mapped(self, name: str, text: str) -> str:
        """A text of a container with the places and ports of this machine."""
        paths = {**_PROGRAMS, **{inside: str(path) for inside, path in self._paths[name].items()}}
        pattern = "|".join(map(re.escape, sorted(paths, key=len, reverse=True)))
        text = re.sub(
            rf"(?<![\w/])(?:{pattern})(?![\w-])|(?<=unix://)(?:{pattern})", lambda match: paths[match[0]], text
        )
        return re.sub(r"(?<=:)\d{4,5}\b", lambda match: str(self.ports.get(match[0], match[0])), text)

    def close(self) -> None:
        """Ends what still runs."""
        for name in list(self._processes):
            self._close(name)

    def _close(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def _container(self, name: str) -> Document:
        (container,) = (one for one in self._containers() if one["name"] == name)
        return container

    def _root(self, container: Document) -> dict[str, Path]:
        """Returns the places of a container's mounts, and of its home."""
        paths = {mount["mountPath"]: self.volume(mount["name"]) for mount in container["volumeMounts"]}
        home = self.folder / f"{container['name']}-home"
        (home / ".cache").mkdir(parents=True)
        cache = paths.get(f"{_HOME}/.cache/abstractllm")
        if cache is not None:
            (home / ".cache/abstractllm").symlink_to(cache)
        return {**paths, _HOME: home}

    def _fill(self, volume: Document) -> None:
        name = volume["name"]
        place = self.volume(name)
        place.mkdir(parents=True)
        if "configMap" in volume:
            files = self._objects["ConfigMap", volume["configMap"]["name"]]["data"]
            (reader,) = (
                container["name"]
                for container in self._containers()
                if name in {mount["name"] for mount in container["volumeMounts"]}
            )
            self.write(name, {key: self.mapped(reader, text) for key, text in files.items()})
        elif "secret" in volume:
            self.write(name, self._secret(volume["secret"]["secretName"]))
        elif "emptyDir" in volume or "persistentVolumeClaim" in volume:
            place.chmod(0o777)
            group = self.spec["securityContext"].get("fsGroup")
            if SWITCHES_USERS and group is not None:
                os.chown(place, 0, group)
                place.chmod(0o2777)

    def _secret(self, name: str) -> dict[str, str]:
        data = self._objects["Secret", name]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _as_user(self, container: Document) -> list[str]:
        """Returns the words before a command that make it another user's.

        The interpreter of the tests may lie where that user may not look: one capability, which lets it read and
        look up everything, is left to it. It does not let it write, nor connect to a socket.
        """
        user, group = (container["securityContext"].get(key) for key in ("runAsUser", "runAsGroup"))
        if not SWITCHES_USERS or user is None:
            return []
        context = self.spec["securityContext"]
        groups = [*context.get("supplementalGroups", ()), *filter(None, [context.get("fsGroup")])]
        listed = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
        rights = [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", *listed, *rights, "--no-new-privs"]


def serves(address: str, service: str, timeout: float = 5) -> bool:
    """Asks a port for the health of a service, as the kubelet does."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def rehearsed(spec: Document, objects: list[Document]) -> Iterator[Pod]:
    """Lends a pod, of which nothing runs yet; what runs at the end is ended."""
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        pod = Pod(spec, objects, Path(folder))
        try:
            yield pod
        finally:
            pod.close()


def secret(name: str, **files: Any) -> Document:
    """A Secret, as a document."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": data}
