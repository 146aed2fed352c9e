"""Every method for every caller: by token, by certificate, by both, and where nobody is asked."""

import time
from pathlib import Path

import pytest

from abstractllm.errors import AbstractLLMError
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.token_entries import digest_of
from abstractllm_server.services.contract import paths_open_to_inference
from abstractllm_server.settings import ServerSettings
from tests.server.certificates import Authority
from tests.server.support import serving
from tests.server.test_auth import METHODS, role_in_the_contract
from tests.server.test_mutual_tls import certificate

PEER = "ipv4:10.0.0.1:4711"
OPEN_TO_ALL = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
OPEN_TO_KNOWN_CALLERS = {
    "/grpc.health.v1.Health/List",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics",
}
MALFORMED = [
    "",
    "/",
    "//",
    "/abstractllm_api.v1.GenerationService",
    "abstractllm_api.v1.GenerationService/Generate",
    "/abstractllm_api.v1.GenerationService/Generate/",
    "/abstractllm_api.v1.GenerationService/Generate/x",
    "//abstractllm_api.v1.GenerationService/Generate",
    "/abstractllm_api.v1.generationservice/Generate",
    "/abstractllm_api.v1.GenerationService%2fGenerate",
    "/abstractllm_api.v1.ModelService/listllms",
    "/abstractllm_api.v1.ModelService/ListLlms ",
    "/abstractllm_api.v1.ModelService/ListLlms\0",
    "/abstractllm_api.v2.GenerationService/Generate",
    "/grpc.health.v1.Health/Check/",
    "/grpc.health.v1.Health/check",
    "/grpc.health.v1.Health/Check/../../abstractllm_api.v1.ConfigService/SetConfig",
    "/grpc.health.v1.Healthy/Check",
    "/grpc.health.v2.Health/Check",
    "/grpc.reflection.v1.ServerReflectionX/ServerReflectionInfo",
    "/grpc.channelz.v1.Channelz/GetServers",
    "/x.Y/Z",
]
TOKENS = {"inference": "inference", "admin": "admin", "expired": "admin expires=2020-01-01"}
CERTIFICATES = {
    "no certificate": {},
    "no role": certificate("nobody", dns="nobody"),
    "inference": certificate("x", dns="backend"),
    "admin": certificate("x", uri="spiffe://mesh/operator"),
    "name of an admin in the wrong place": certificate("spiffe://mesh/operator", dns="nobody"),
}
SUBJECTS = {"backend": "inference", "spiffe://mesh/operator": "admin"}


def caller(access: AccessControl, method: str, token: str | None, properties: dict[str, list[bytes]]) -> str:
    """The name that the caller of a call has, or the reason for which they are refused."""
    metadata = (("user-agent", "x"), *((("authorization", f"Bearer {token}"),) if token is not None else ()))
    try:
        return access.authenticate(method, metadata, properties, PEER).caller
    except AbstractLLMError as error:
        return error.reason


def expected(method: str, role: str | None, name: str, repository: Path) -> str:
    """The outcome that the table has for a caller of a role, None for an unknown one: their name, or a reason."""
    if method in OPEN_TO_ALL:
        return PEER
    if role is None:
        return name
    if role == "inference" and method not in OPEN_TO_KNOWN_CALLERS:
        is_open = method in METHODS and role_in_the_contract(METHODS[method], repository) == "inference"
        if not is_open:
            return "NOT_ALLOWED"
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    lines = [f"{digest_of(name)} {entry} {'' if 'expires' in entry else name}\n" for name, entry in TOKENS.items()]
    (folder / "tokens").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def tls(folder: Path) -> dict[str, object]:
    root = Authority(folder)
    pair = root.sign("server")
    return {"certificate": pair.certificate, "key": pair.key, "client_ca": root.pair.certificate}


def control(**settings: object) -> AccessControl:
    return AccessControl(ServerSettings(llms={"echo": {}}, **settings), list(paths_open_to_inference()))


async def test_the_matrix_has_every_method_that_a_server_answers() -> None:
    async with serving() as running:
        assert set(running.server._guard.methods) == METHODS.keys() | OPEN_TO_ALL | OPEN_TO_KNOWN_CALLERS


ALL = sorted({*METHODS, *OPEN_TO_ALL, *OPEN_TO_KNOWN_CALLERS})  # in one order in every process that runs tests


@pytest.mark.parametrize("method", ALL)
def test_tokens(method: str, folder: Path, repository: Path) -> None:
    access = control(tokens=folder / "tokens")
    for token in (None, "wrong", "expired", ""):
        assert caller(access, method, token, {}) == expected(method, None, "UNAUTHENTICATED", repository)
        # A certificate is nobody's credential where none is asked for.
        assert caller(access, method, token, CERTIFICATES["admin"]) == expected(
            method, None, "UNAUTHENTICATED", repository
        )
    for role in ("inference", "admin"):
        assert caller(access, method, role, {}) == expected(method, role, f"{role}:{role}", repository)


@pytest.mark.parametrize("method", ALL)
def test_certificates(method: str, tls: dict[str, object], repository: Path) -> None:
    access = control(tls=tls | {"subjects": SUBJECTS})
    # A token is nobody's credential where none is asked for.
    for token in (None, "admin"):
        names = {
            "no certificate": (None, "UNAUTHENTICATED"),
            "no role": (None, "NOT_ALLOWED"),
            "inference": ("inference", "inference:backend"),
            "admin": ("admin", "admin:spiffe://mesh/operator"),
            "name of an admin in the wrong place": (None, "NOT_ALLOWED"),
        }
        for kind, (role, name) in names.items():
            assert caller(access, method, token, CERTIFICATES[kind]) == expected(method, role, name, repository), kind


@pytest.mark.parametrize("method", ALL)
def test_tokens_and_certificates_together(method: str, folder: Path, tls: dict[str, object], repository: Path) -> None:
    access = control(tokens=folder / "tokens", tls=tls | {"subjects": SUBJECTS})
    for kind, properties in CERTIFICATES.items():
        # A token that is brought decides: a wrong one is not made good by a certificate.
        for token in ("wrong", "expired"):
            assert caller(access, method, token, properties) == expected(method, None, "UNAUTHENTICATED", repository)
        for role in ("inference", "admin"):
            name = expected(method, role, f"{role}:{role}", repository)
            assert caller(access, method, role, properties) == name, kind
    for role, name in (("inference", "inference:backend"), ("admin", "admin:spiffe://mesh/operator")):
        assert caller(access, method, None, CERTIFICATES[role]) == expected(method, role, name, repository)


@pytest.mark.parametrize("method", ALL)
def test_tokens_where_certificates_only_let_connect(
    method: str, folder: Path, tls: dict[str, object], repository: Path
) -> None:
    access = control(tokens=folder / "tokens", tls=tls)
    assert caller(access, method, None, CERTIFICATES["admin"]) == expected(method, None, "UNAUTHENTICATED", repository)
    assert caller(access, method, "admin", CERTIFICATES["no role"]) == expected(
        method, "admin", "admin:admin", repository
    )


@pytest.mark.parametrize("method", [*ALL, *MALFORMED])
def test_where_nobody_is_asked_everybody_is_their_connection(method: str) -> None:
    assert caller(control(), method, None, {}) == PEER
    assert caller(control(), method, "anything", {}) == PEER


@pytest.mark.parametrize("method", MALFORMED)
def test_a_malformed_path_opens_nothing(method: str, folder: Path) -> None:
    access = control(tokens=folder / "tokens")
    assert caller(access, method, None, {}) == "UNAUTHENTICATED"
    is_method_of_an_open_service = method.count("/") == 2 and method.startswith(
        ("/abstractllm_api.v1.GenerationService/", "/grpc.health.v1.Health/")
    )
    assert caller(access, method, "inference", {}) == (
        "inference:inference" if is_method_of_an_open_service else "NOT_ALLOWED"
    )


HEADERS = [
    ("Bearer admin", "admin:admin"),
    ("bearer admin", "admin:admin"),
    ("BEARER  admin ", "admin:admin"),
    (b"Bearer admin", "admin:admin"),
    ("Bearer", "UNAUTHENTICATED"),
    ("Bearer ", "UNAUTHENTICATED"),
    ("Bearer     ", "UNAUTHENTICATED"),
    ("Bearer admin, Bearer inference", "UNAUTHENTICATED"),
    ("Bearer\tadmin", "UNAUTHENTICATED"),
    ("Basic admin", "UNAUTHENTICATED"),
    ("admin", "UNAUTHENTICATED"),
    ("", "UNAUTHENTICATED"),
    ("Bearer admin\0", "UNAUTHENTICATED"),
    ("Bearer " + "x" * 5000, "UNAUTHENTICATED"),
    ("Bearer " + digest_of("admin"), "UNAUTHENTICATED"),
    (b"Bearer \xff\xfe", "UNAUTHENTICATED"),
    ("Bearer \ud800", "UNAUTHENTICATED"),
]


@pytest.mark.parametrize(("value", "name"), HEADERS)
def test_the_header_of_a_token(value: str | bytes, name: str, folder: Path) -> None:
    access = control(tokens=folder / "tokens")
    assert reason_or_caller(access, [("authorization", value)]) == name


def reason_or_caller(access: AccessControl, metadata: list[tuple[str, str | bytes]]) -> str:
    try:
        return access.authenticate("/x.Y/Z", metadata, {}, PEER).caller
    except AbstractLLMError as error:
        return "a token is repeated" if "admin" in error.message else error.reason


def test_a_check_takes_microseconds_however_many_tokens_there_are(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("".join(f"{digest_of(str(number))} inference\n" for number in range(20_000)))
    access = control(tokens=file)
    times = []
    for number in (0, 19_999, 20_000):
        began = time.thread_time()
        for _ in range(200):
            caller(access, "/x.Y/Z", str(number), {})
        times.append((time.thread_time() - began) / 200)
    print(f"{[round(seconds * 1e6) for seconds in times]} microseconds: first, last, unknown token of 20,000")
    assert max(times) < 0.002
