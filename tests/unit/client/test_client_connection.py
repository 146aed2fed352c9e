"""Connections of a client, its credentials, and the packages that it imports."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import abstractllm_client
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_client import AsyncRemoteLLM, ConfigurationError, ProviderUnavailableError, RemoteLLM
from tests.server.certificates import openssl

ROOT = Path(__file__).resolve().parents[3]


async def test_the_token_goes_with_every_call(server: Any) -> None:
    server.say()
    with RemoteLLM(server.address, token="s3cret") as llm:
        llm.generate("Hi")
        list(llm.stream("Hi"))
        await llm.generate_async("Hi")
        assert [metadata["authorization"] for metadata in server.metadata] == ["Bearer s3cret"] * 3
        assert "s3cret" not in repr(llm) + repr(llm._connection)
    with RemoteLLM(server.address) as llm:
        llm.generate("Hi")
    assert "authorization" not in server.metadata[-1]


async def test_the_metadata_goes_with_every_call(server: Any) -> None:
    server.say()
    numbers = iter(range(1, 5))
    with RemoteLLM(server.address, metadata=lambda: {"x-call": str(next(numbers))}) as llm:
        llm.generate("Hi")
        list(llm.stream("Hi"))
        await llm.generate_async("Hi")
        _ = [event async for event in llm.stream_async("Hi")]
    assert [metadata["x-call"] for metadata in server.metadata] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"address": ""}, "address"),
        ({"address": "http://localhost:50051"}, "address"),
        ({"address": "x:1", "token": ""}, "token"),
        ({"address": "x:1", "token": "two\nlines"}, "token"),
        ({"address": "x:1", "token": "schlüssel"}, "token"),
        ({"address": "x:1", "private_key": b"k"}, "certificate_chain"),
    ],
)
@pytest.mark.parametrize("kind", [RemoteLLM, AsyncRemoteLLM])
def test_what_cannot_connect_is_refused_at_once(kind: Any, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**arguments)
    assert caught.value.field == field
    if arguments.get("token"):
        assert arguments["token"] not in str(caught.value)


class Greeter(generation_pb2_grpc.GenerationServiceServicer):
    def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.GenerateResponse(text="Hello")


@pytest.fixture
def plain_server() -> Any:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(Greeter(), server)  # type: ignore[arg-type]
    yield server
    server.stop(0).wait()


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
@pytest.mark.parametrize("scheme", ["unix:", "unix://"])
async def test_a_unix_socket_is_an_address(plain_server: Any, tmp_path: Path, scheme: str) -> None:
    address = f"{scheme}{tmp_path}/llm.sock"
    plain_server.add_insecure_port(f"unix:{tmp_path}/llm.sock")
    plain_server.start()
    with RemoteLLM(address) as llm:
        assert llm.generate("Hi") == "Hello"
        assert await llm.generate_async("Hi") == "Hello"


async def test_tls_with_own_roots_and_client_certificates(plain_server: Any, certificates: Path) -> None:
    read = {name: (certificates / name).read_bytes() for name in ("ca.pem", "server.pem", "server.key")}
    credentials = grpc.ssl_server_credentials(
        [(read["server.key"], read["server.pem"])], read["ca.pem"], require_client_auth=True
    )
    port = plain_server.add_secure_port("127.0.0.1:0", credentials)
    plain_server.start()
    address = f"localhost:{port}"
    key, chain = (certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes()
    with RemoteLLM(
        address, root_certificates=read["ca.pem"], private_key=key, certificate_chain=chain, token="t"
    ) as llm:
        assert llm.generate("Hi") == "Hello"
        assert await llm.generate_async("Hi") == "Hello"
        assert b"PRIVATE" not in repr(llm._connection).encode()
    no_retries = [("grpc.enable_retries", 0)]
    for options in ({"tls": True}, {"root_certificates": read["ca.pem"]}, {}):
        with (
            RemoteLLM(address, channel_options=no_retries, **options) as llm,
            pytest.raises(ProviderUnavailableError),
        ):
            llm.generate("Hi")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate authority, and a key pair of localhost that it signed."""
    extensions = tmp_path / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", "utf-8")
    commands = (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile extensions",
    )
    for command in commands:
        openssl(*command.split(), folder=tmp_path)
    return tmp_path


def test_importing_it_loads_its_three_dependencies_alone() -> None:
    script = (
        "import sys, json; before = set(sys.modules); import abstractllm_client;"
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(run.stdout)) - sys.stdlib_module_names
    # grpc looks for its own sister packages, needs typing_extensions, and leaves Cython's marks.
    of_grpc = {name for name in loaded if name.startswith(("grpc_", "_cython", "cython_runtime"))}
    assert loaded - of_grpc - {"typing_extensions"} == {"abstractllm_api", "abstractllm_client", "google", "grpc"}


def test_the_distribution_declares_its_three_dependencies_alone() -> None:
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
    assert sorted(project["dependencies"]) == [
        "googleapis-common-protos>=1.69.2",
        "grpcio>=1.81.1",
        "protobuf>=6.33.5,<8",
    ]
    assert project["version"] == abstractllm_client.__version__


def test_every_exported_name_exists() -> None:
    assert len(set(abstractllm_client.__all__)) == len(abstractllm_client.__all__)
    for name in abstractllm_client.__all__:
        assert getattr(abstractllm_client, name) is not None
