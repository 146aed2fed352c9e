"""Tokens and roles: the methods that a caller may call, and the errors that a refused caller gets."""

import asyncio
import hashlib
import re
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import empty_pb2
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from abstractllm.errors import ConfigurationError
from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from abstractllm_client import AsyncRemoteLLM, AuthenticationError, PermissionDeniedError
from abstractllm_server.security.credentials import TokenFile
from abstractllm_server.settings import ServerSettings
from tests.server.support import HANG, failure_of, request, serving
from tests.waiting import until

USER, ADMIN = "user-token-5f1c", "admin-token-9a2e"


def line(token, role, name=""):
    return f"{hashlib.sha256(token.encode()).hexdigest()} {role} {name}\n"


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# who may call\n\n" + line(USER, "inference", "backend") + line(ADMIN, "admin"))
    return file


@asynccontextmanager
async def guarded(tokens):
    async with serving(tokens=tokens) as running:
        yield running


def bearer(token):
    return (("authorization", f"Bearer {token}"),) if token is not None else ()


FILES = (generation_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
"""Every method of the contract by its path."""
GENERATE = "/abstractllm_api.v1.GenerationService/Generate"


def role_in_the_contract(method, repository):
    """The least role that a method needs, as the comment of its service in the contract says."""
    text = (repository / "proto" / method.containing_service.file.name).read_text("utf-8")
    comment = re.search(rf"((?:^//.*\n)+)service {method.containing_service.name} ", text, re.M)[1]
    comment = " ".join(comment.replace("//", " ").split())
    if "Every RPC here is open to the `inference` role" in comment:
        return "inference"
    if "Every RPC here needs the `admin` role" in comment:
        return "admin"
    open_methods = re.search(r"([\w, ]+) are open to the `inference` role; the others need the `admin` role", comment)[
        1
    ]
    return "inference" if method.name in re.findall(r"\w+", open_methods) else "admin"


async def outcome(running, path, token):
    """The status code that a call with a token ends with, and its reason."""
    method = METHODS[path]
    request_class, response_class = map(GetMessageClass, (method.input_type, method.output_type))
    message = request_class(prompt="hi") if "prompt" in method.input_type.fields_by_name else request_class()
    make = running.channel.unary_stream if method.server_streaming else running.channel.unary_unary
    call = make(path, request_class.SerializeToString, response_class.FromString)(
        message, metadata=bearer(token), timeout=HANG
    )
    try:
        if method.server_streaming:
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        ending = failure_of(error)
        return ending.code, ending.reason
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_needs_the_role_that_the_contract_says(tokens, method, repository):
    least = role_in_the_contract(METHODS[method], repository)
    async with guarded(tokens) as running:
        unknown = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert await outcome(running, method, None) == unknown
        assert await outcome(running, method, "wrong") == unknown
        as_user = await outcome(running, method, USER)
        as_admin = await outcome(running, method, ADMIN)
    not_allowed = (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert (as_user == not_allowed) is (least == "admin")
    assert as_admin[1] not in ("NOT_ALLOWED", "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {USER}", USER, f"Bearer {USER} x", f"Bearer {'x' * 5000}"]
)
async def test_what_is_no_bearer_token_is_refused(tokens, value):
    async with guarded(tokens) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(request("hi"), metadata=(("authorization", value),), timeout=HANG)
    assert failure_of(caught.value).reason == "UNAUTHENTICATED"
    assert USER not in (caught.value.details() or "")


async def test_two_tokens_are_refused(tokens):
    async with guarded(tokens) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(request("hi"), metadata=bearer(USER) * 2, timeout=HANG)
    assert failure_of(caught.value).reason == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "code_of_user"),
    [
        # An older server tells the callers of a service that it lacks a method of it.
        ("/abstractllm_api.v1.GenerationService/Nothing", grpc.StatusCode.UNIMPLEMENTED),
        ("/abstractllm_api.v1.ModelService/Nothing", grpc.StatusCode.PERMISSION_DENIED),
        ("/x.Y/Z", grpc.StatusCode.PERMISSION_DENIED),
        ("/abstractllm_api.v1./", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_unknown_methods_need_the_role_of_their_service(tokens, path, code_of_user):
    async with guarded(tokens) as running:
        call = running.channel.unary_unary(path, empty_pb2.Empty.SerializeToString, empty_pb2.Empty.FromString)
        codes = []
        for token in (None, USER, ADMIN):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(empty_pb2.Empty(), metadata=bearer(token), timeout=HANG)
            codes.append(caught.value.code())
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, code_of_user, grpc.StatusCode.UNIMPLEMENTED]


async def test_probes_need_no_credentials(tokens):
    async with guarded(tokens) as running:
        answer = await running.health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=HANG)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_call_without_a_token_ends_before_its_message_has_arrived(tokens):
    """A caller who sends only headers holds nothing."""
    async with guarded(tokens) as running:

        async def never():
            await asyncio.Event().wait()
            yield request("hi")

        path = "/abstractllm_api.v1.GenerationService/Generate"
        call = running.channel.stream_unary(path)(never())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call, HANG)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_client_s_token_and_errors(tokens):
    async with guarded(tokens) as running:
        async with AsyncRemoteLLM(running.server.address, token=USER) as llm:
            assert await llm.generate("hi there") == "hi there"
            with pytest.raises(PermissionDeniedError):
                await llm.get_config()
        async with AsyncRemoteLLM(running.server.address, token=ADMIN) as llm:
            assert "model" in await llm.get_config()
        async with AsyncRemoteLLM(running.server.address) as llm:
            with pytest.raises(AuthenticationError):
                await llm.generate("hi")


async def test_a_changed_file_is_taken_over_and_a_broken_one_changes_nothing(tokens):
    async with guarded(tokens) as running:
        tokens.write_text("nonsense\n")
        await until(lambda: running.server._access.watcher.failed_reloads == 1)
        assert (await outcome(running, GENERATE, USER))[0] is grpc.StatusCode.OK
        tokens.write_text(line("another", "inference"))
        await until(lambda: running.server._access.tokens.find("another"))
        assert (await outcome(running, GENERATE, "another"))[0] is grpc.StatusCode.OK
        assert (await outcome(running, GENERATE, USER))[1] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "text",
    ["secret admin\n", "a" * 64 + "\n", "a" * 64 + " owner\n", "g" * 64 + " admin\n", "a" * 63 + " admin\n"],
    ids=["no hash", "no role", "no such role", "not hexadecimal", "too short"],
)
def test_a_wrong_line_is_named_and_not_repeated(tmp_path, text):
    (tmp_path / "tokens").write_text("# fine\n" + text)
    with pytest.raises(ConfigurationError, match=r"tokens:2: ") as caught:
        TokenFile(tmp_path / "tokens")
    assert text.split()[0] not in str(caught.value)


def test_a_missing_file_is_an_error_at_start(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TokenFile(tmp_path / "none")


def test_tokens_let_a_server_listen_beyond_this_machine(tmp_path):
    llms = {"echo": {"provider": "scripted"}}
    with pytest.raises(ConfigurationError, match="no credentials"):
        ServerSettings(listen="0.0.0.0:0", llms=llms).check()
    ServerSettings(listen="0.0.0.0:0", llms=llms, tokens=tmp_path / "tokens").check()
