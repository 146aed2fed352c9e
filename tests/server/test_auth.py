"""Tokens and roles: who may call what, and what a refused caller is told."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2

from abstractllm.errors import ConfigurationError
from abstractllm_api.v1 import config_pb2, models_pb2
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


# Each method with a request that would be answered, and the least role that it needs.
METHODS = {
    "generation.Generate": (request("hi"), "inference"),
    "generation.StreamGenerate": (request("hi"), "inference"),
    "generation.CountTokens": (None, "inference"),
    "models.GetCapabilities": (models_pb2.GetCapabilitiesRequest(), "inference"),
    "models.ListLlms": (models_pb2.ListLlmsRequest(), "inference"),
    "models.ListCachedModels": (models_pb2.ListCachedModelsRequest(), "admin"),
    "models.PullModel": (models_pb2.PullModelRequest(), "admin"),
    "models.LoadModel": (models_pb2.LoadModelRequest(), "admin"),
    "models.UnloadModel": (models_pb2.UnloadModelRequest(), "admin"),
    "models.ClearCache": (models_pb2.ClearCacheRequest(), "admin"),
    "config.GetConfig": (config_pb2.GetConfigRequest(), "admin"),
    "config.SetConfig": (config_pb2.SetConfigRequest(), "admin"),
}


def test_the_table_names_every_method_of_the_contract():
    from abstractllm_api.v1 import generation_pb2

    files = {"generation": generation_pb2, "models": models_pb2, "config": config_pb2}
    named = {
        f"{key}.{method.name}"
        for key, file in files.items()
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert named == set(METHODS)


async def outcome(running, method, token):
    """The status code that a call with a token ends with, and its reason."""
    service, name = method.split(".")
    message = METHODS[method][0]
    if message is None:
        from abstractllm_api.v1 import generation_pb2

        message = generation_pb2.CountTokensRequest(prompt="hi")
    call = getattr(getattr(running, service), name)(message, metadata=bearer(token), timeout=HANG)
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        found = failure_of(error)
        return found.code, found.reason
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_asks_for_its_role(tokens, method):
    least = METHODS[method][1]
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


@pytest.mark.parametrize("path", ["/abstractllm_api.v1.GenerationService/Nothing", "/x.Y/Z", "/abstractllm_api.v1./"])
async def test_unknown_methods_are_denied_to_all_but_admins(tokens, path):
    async with guarded(tokens) as running:
        call = running.channel.unary_unary(path, empty_pb2.Empty.SerializeToString, empty_pb2.Empty.FromString)
        codes = []
        for token in (None, ADMIN):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(empty_pb2.Empty(), metadata=bearer(token), timeout=HANG)
            codes.append(caught.value.code())
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED]


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
        assert (await outcome(running, "generation.Generate", USER))[0] is grpc.StatusCode.OK
        tokens.write_text(line("another", "inference"))
        await until(lambda: running.server._access.tokens.find("another"))
        assert (await outcome(running, "generation.Generate", "another"))[0] is grpc.StatusCode.OK
        assert (await outcome(running, "generation.Generate", USER))[1] == "UNAUTHENTICATED"


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
