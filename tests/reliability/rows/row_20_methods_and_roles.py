"""Row 20: methods by roles, and malformed paths.

Pass mark: every method answers each role (none, an unknown token, inference, admin) as docs/configuration.md says: a
stranger calls health alone, `inference` what the contract opens to it, `admin` everything; a method that does not
exist, in 24 spellings, is denied or unimplemented for every role.
Load: some 200 calls.
"""

from __future__ import annotations

from grpc import aio

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from tests.reliability.calls import bearer, end_of
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import serving
from tests.reliability.tokens import ADMIN, TOKEN, token_file

_PREFIX = "/abstractllm_api.v1."
_INFERENCE = {"Generate", "StreamGenerate", "CountTokens", "ListLlms", "GetCapabilities"}
_REFLECTION = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
_HEALTH = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"]
_ROLES = {"no token": None, "an unknown token": "stranger", "inference": TOKEN, "admin": ADMIN}
_MALFORMED = [
    "/",
    "//",
    "/x",
    f"{_PREFIX}ConfigService",
    f"{_PREFIX}ConfigService/",
    f"{_PREFIX}ConfigService/setConfig",
    f"{_PREFIX}ConfigService/SetConfig/",
    f"{_PREFIX}ConfigService//SetConfig",
    f"{_PREFIX}ConfigService/SetConfig?x=1",
    f"{_PREFIX}ConfigService/SetConfig%00",
    f"{_PREFIX}ConfigService/%53etConfig",
    f"/{_PREFIX}ConfigService/SetConfig",
    f"{_PREFIX}GenerationService/../ConfigService/SetConfig",
    f"{_PREFIX}GenerationService/SetConfig",
    "/grpc.health.v1.Health/../../abstractllm_api.v1.ConfigService/SetConfig",
    "/grpc.health.v1.Health/SetConfig",
    "/grpc.health.v1.Health/",
    "/grpc.health.v1.HealthX/Check",
    "/grpc.reflection.v1.ServerReflection/x",
    "/grpc.channelz.v1.Channelz/GetServers",
    "/abstractllm_api.v2.ConfigService/SetConfig",
    f"{_PREFIX}ConfigService/SetConfig ",
    f"{_PREFIX}configservice/SetConfig",
    f"{_PREFIX}ConfigService/SetConfig#x",
]


async def measure(setting: Setting) -> Figures:
    """Calls every method as each role, with an empty message."""
    figures = setting.figures()
    services = [
        file.services_by_name.values()
        for file in (config_pb2.DESCRIPTOR, generation_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR)
    ]
    methods = [
        f"/{service.full_name}/{method.name}" for group in services for service in group for method in service.methods
    ]
    tokens = str(token_file(setting.folder))
    async with serving(setting.folder, tokens=tokens) as server, server.channel() as channel:
        wrong = []
        for role, token in _ROLES.items():
            for path in [*methods, *_REFLECTION, *_HEALTH[:2]]:
                end = await _end(channel, path, token)
                if not _as_documented(path, role, end):
                    wrong.append(f"{role} {path}: {end}")
        figures.equal(f"ends of {len(_ROLES)} roles x {len(methods) + 4} methods not as documented", wrong, [])
        refused = {
            "no token": ("UNAUTHENTICATED", "UNIMPLEMENTED"),
            "an unknown token": ("UNAUTHENTICATED", "UNIMPLEMENTED"),
        }
        wrong = []
        for role, token in _ROLES.items():
            for path in _MALFORMED:
                end = await _end(channel, path, token)
                if end.partition(" ")[0] not in refused.get(role, ("PERMISSION_DENIED", "UNIMPLEMENTED")):
                    wrong.append(f"{role} {path!r}: {end}")
        figures.equal(f"malformed paths answered, of {len(_MALFORMED)} x {len(_ROLES)}", wrong, [])
        figures.holds("serves on", await server.is_healthy())
    return figures


def _as_documented(path: str, role: str, end: str) -> bool:
    if path in _HEALTH:
        return end in ("OK", "DEADLINE_EXCEEDED")
    if role in ("no token", "an unknown token"):
        return end == "UNAUTHENTICATED UNAUTHENTICATED"
    if role == "inference" and path not in _REFLECTION and path.rpartition("/")[2] not in _INFERENCE:
        return end == "PERMISSION_DENIED NOT_ALLOWED"
    # An empty message may be refused for its content, never for its caller.
    return end.partition(" ")[0] not in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNKNOWN", "INTERNAL")


async def _end(channel: aio.Channel, path: str, token: str | None) -> str:
    """The status and reason of a call with an empty message; a stream is left after its first answer."""
    call = channel.unary_stream(path)(b"", timeout=1 if path in _HEALTH else 5, metadata=bearer(token))
    try:
        async for _ in call:
            if path in _HEALTH:
                return "OK"
    except aio.AioRpcError as error:
        return str(end_of(error))
    finally:
        call.cancel()
    return "OK"


ROW = Row(
    numbers=(20,),
    title="every method as every role; malformed paths",
    pass_mark="as documented; default deny",
    measure=measure,
    quick=True,
)
