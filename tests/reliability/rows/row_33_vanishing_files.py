"""Rows 19 and 33: certificates, authorities, keys and tokens that are replaced, spoilt, and vanish.

Pass mark: of 20 rotations under load, half of them bad (a file that is gone for a moment, half a file, a key of
another certificate, an empty file), every good one is taken over within five seconds, also after a bad one, every bad
one is told in the log, and the good caller meets with no error. Callers with certificates of six bad kinds are
refused, in TLS with and without callers' certificates: expired, of another authority, self-signed, none, for another
name, with another's key.
Load: one server, 20 rotations with one to four seconds between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from grpc import aio

from tests.reliability.caller import calling
from tests.reliability.calls import Stub, bearer, request, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, echo, serving
from tests.reliability.tokens import TOKEN, token_file, token_line
from tests.server.certificates import PAST, Authority, Pair

_WITHIN = 5.0
_SPOILS = ("vanished for a moment", "half a file", "another's key", "empty")


async def measure(setting: Setting) -> Figures:
    """Rotates the server's pair and its tokens, well and badly."""
    figures = setting.figures()
    folder = setting.folder
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    files = Pair(folder / "live.crt", folder / "live.key")
    good = [authority.sign("server", file=f"server{number}") for number in range(2)]
    _install(good[0], files)
    tokens = token_file(folder)
    root = folder / "callers.crt"
    shutil.copyfile(authority.pair.certificate, root)
    caller = authority.sign("backend")
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    credentials = grpc.ssl_channel_credentials(authority.pair.certificate.read_bytes())
    rotations = setting.load(20, 4)
    async with serving(folder / "tokens", tls=tls, tokens=str(tokens), credentials=credentials) as server:
        async with calling(server.address, token=TOKEN, root=authority.pair.certificate) as steady:
            late, told = await _rotate(server, rotations, files, good, tokens)
            met = await steady.stop()
    figures.equal(f"good rotations of {rotations // 2} not taken over within {_WITHIN:g} s", len(late), 0)
    for name in late:
        figures.holds("late", passed=False, value=name)
    figures.equal("bad rotations not told in the log", [name for name, is_told in told if not is_told], [])
    figures.equal("errors of the good caller", met.errors, {})
    _install(good[0], files)
    mutual = tls | {"client_ca": str(root), "subjects": {"backend": "inference"}}
    async with _mutual(folder / "mutual", mutual, authority, caller) as server:
        await _bad_certificates(figures, server, authority, stranger, caller)
        await _rotate_authority(figures, server, root, authority, stranger, caller)
    return figures


def _install(pair: Pair, files: Pair) -> None:
    shutil.copyfile(pair.key, files.key)
    shutil.copyfile(pair.certificate, files.certificate)


async def _rotate(
    server: ServerProcess, rotations: int, files: Pair, good: list[Pair], tokens: Path
) -> tuple[list[str], list[tuple[str, bool]]]:
    """Alternates bad and good rotations; returns the good ones that were late, and of each bad one if it was told."""
    late, told = [], []
    for number in range(rotations // 2):
        spoil = _SPOILS[number % len(_SPOILS)]
        before = len(server.log)
        if number % 2:
            await _spoil_tokens(tokens, spoil)
        else:
            await _spoil_pair(files, spoil, good)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4):
                while len(server.log) == before:  # a file of another process
                    await asyncio.sleep(0.1)
        told.append((f"{spoil} ({'tokens' if number % 2 else 'certificate'})", len(server.log) > before))
        if number % 2:
            token = f"new-{number}"
            tokens.write_text(_lines(token))

            async def taken(token: str = token) -> bool:
                async with server.channel() as channel:
                    call = Stub(channel).Generate(request(), metadata=bearer(token), timeout=5)
                    return (await unary(call)).code == "OK"

        else:
            pair = good[(number // 2 + 1) % 2]
            _install(pair, files)
            serial = _serial(pair.certificate.read_bytes())

            async def taken(serial: int = serial) -> bool:
                return await _shown_serial(server.address) == serial

        if not await _comes(taken):
            late.append(f"{number}: after {spoil}")
    return late, told


def _lines(*tokens: str) -> str:
    return token_line(TOKEN, "inference", "caller") + "".join(
        token_line(token, "inference", f"further-{token}") for token in tokens
    )


async def _spoil_tokens(tokens: Path, spoil: str) -> None:
    if spoil.startswith("vanished"):
        await _flicker(tokens)
    elif spoil == "half a file":
        tokens.write_text(_lines()[:70])
    else:
        tokens.write_text("" if spoil == "empty" else "not a hash inference x\n")


async def _flicker(path: Path) -> None:
    """Takes a file away and puts it back, so that a reader misses it at any moment; then it stays away."""
    away = path.with_suffix(".away")
    for _ in range(30):
        path.rename(away)
        await asyncio.sleep(0.03)
        away.rename(path)
        await asyncio.sleep(0.03)
    path.rename(away)
    await asyncio.sleep(1.5)


async def _spoil_pair(files: Pair, spoil: str, good: list[Pair]) -> None:
    if spoil.startswith("vanished"):
        await _flicker(files.key)
    elif spoil == "half a file":
        files.certificate.write_bytes(good[1].certificate.read_bytes()[:300])
    elif spoil == "another's key":
        current = files.key.read_bytes()
        files.key.write_bytes(next(pair for pair in good if pair.key.read_bytes() != current).key.read_bytes())
    else:
        files.certificate.write_bytes(b"")


async def _comes(taken: Callable[[], Awaitable[bool]]) -> bool:
    end = time.monotonic() + _WITHIN
    while time.monotonic() < end:
        if await taken():
            return True
        await asyncio.sleep(0.1)
    return False


def _serial(pem: bytes) -> int:
    return hash(ssl.PEM_cert_to_DER_cert(pem.decode()[: pem.decode().index("-----END") + 25]))


async def _shown_serial(address: str) -> int:
    """Returns a number that tells one certificate of the server's from another."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=context), 3)
    except (OSError, TimeoutError):
        return 0
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return hash(shown)


@contextlib.asynccontextmanager
async def _mutual(folder: Path, tls: dict[str, object], authority: Authority, caller: Pair):  # type: ignore[no-untyped-def]
    credentials = _credentials(authority.pair.certificate, caller)
    async with serving(folder, echo(), tls=tls, credentials=credentials, ready=False) as server:
        await _until_listening(server)
        yield server


async def _until_listening(server: ServerProcess) -> None:
    async def answered() -> bool:
        async with server.channel() as channel:
            return (await unary(Stub(channel).Generate(request(), timeout=3))).code == "OK"

    async with asyncio.timeout(60):
        while not await answered():  # another process
            await asyncio.sleep(0.1)


def _credentials(root: Path, pair: Pair | None) -> grpc.ChannelCredentials:
    key, chain = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
    return grpc.ssl_channel_credentials(root.read_bytes(), key, chain)


async def _answers(server: ServerProcess, credentials: grpc.ChannelCredentials, name: str = "localhost") -> bool:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", name)]
    async with aio.secure_channel(server.address, credentials, options) as channel:
        return (await unary(Stub(channel).Generate(request(), timeout=3))).code == "OK"


async def _bad_certificates(
    figures: Figures, server: ServerProcess, authority: Authority, stranger: Authority, caller: Pair
) -> None:
    root = authority.pair.certificate
    kinds = {
        "expired": authority.sign("expired", dates=PAST),
        "of another authority": stranger.sign("backend", file="strangers"),
        "self-signed": stranger.pair,
        "none": None,
        "of no role": authority.sign("nobody"),
    }
    accepted = [name for name, pair in kinds.items() if await _answers(server, _credentials(root, pair))]
    with contextlib.suppress(ValueError, RuntimeError):
        if await _answers(server, _credentials(root, Pair(caller.certificate, stranger.pair.key))):
            accepted.append("another's key")
    figures.equal("bad certificates of callers accepted", accepted, [])
    wrong = [
        name
        for name, answers in {
            "the server under another name": await _answers(server, _credentials(root, caller), "elsewhere"),
            "a server of another authority": await _answers(server, _credentials(stranger.pair.certificate, caller)),
        }.items()
        if answers
    ]
    figures.equal("bad servers accepted by the client", wrong, [])
    figures.holds("a good certificate is accepted", await _answers(server, _credentials(root, caller)))


async def _rotate_authority(
    figures: Figures, server: ServerProcess, root: Path, authority: Authority, stranger: Authority, caller: Pair
) -> None:
    """Replaces the authority of the callers: an open connection of the old one must not outlive it for long."""
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(server.address, _credentials(authority.pair.certificate, caller), options) as channel:
        await Stub(channel).Generate(request(), timeout=5)
        shutil.copyfile(stranger.pair.certificate, root)
        replaced = _credentials(authority.pair.certificate, stranger.sign("backend", file="replaced"))

        async def newcomer() -> bool:
            return await _answers(server, replaced)

        async def refused() -> bool:
            return (await unary(Stub(channel).Generate(request(), timeout=3))).code != "OK"

        figures.holds("the new authority is taken over", await _comes(newcomer))
        figures.holds("an open connection ends with its authority", await _comes(refused))


ROW = Row(
    numbers=(19, 33),
    title="certificates, keys and tokens that vanish and come back, 20 rotations, half bad; bad certificates",
    pass_mark="every good one taken over; every bad one in the log; 0 accepted; 0 errors for good callers",
    measure=measure,
    quick=False,
)
