"""The files of TLS, read again while a server runs."""

import shutil
from pathlib import Path

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm_server.security import tls
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.certificate_validity import expiry_of
from abstractllm_server.security.tls import Certificates
from abstractllm_server.settings import Role, ServerSettings, TlsSettings
from tests.server.certificates import FUTURE, PAST, Authority, Pair, openssl
from tests.server.test_auth import line


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("root"))


def install(pair: Pair, live: Pair) -> None:
    shutil.copy(pair.certificate, live.certificate)
    shutil.copy(pair.key, live.key)


@pytest.mark.parametrize(("dates", "fault"), [(PAST, "has expired"), (FUTURE, "is not valid yet")])
def test_a_valid_certificate_does_not_give_way_to_one_that_is_not(
    root: Authority, tmp_path: Path, dates: tuple[str, str], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    live, other = Pair(tmp_path / "live.crt", tmp_path / "live.key"), root.sign("server", dates=dates, file="other")
    install(root.sign("server", file="valid"), live)
    certificates = Certificates(live.certificate, live.key, None)
    (before,) = certificates.measurements()
    install(other, live)
    with pytest.raises(ConfigurationError, match=fault):
        certificates.reload()
    assert list(certificates.measurements()) == [before]
    assert fault not in caplog.text  # it is tried again every ten seconds
    # One that starts with it has no better one.
    again = Certificates(live.certificate, live.key, None)
    assert fault in caplog.text
    again.reload()
    newer = root.sign("server", file="newer")
    install(newer, live)
    again.reload()
    (after,) = again.measurements()
    assert after.value == expiry_of(newer.certificate.read_text())


@pytest.mark.parametrize(
    "kind", [("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), ("ed448",)], ids=lambda kind: kind[-1]
)
def test_a_key_that_grpc_does_not_know_is_refused_and_the_earlier_one_stays(
    root: Authority, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    live = Pair(tmp_path / "live.crt", tmp_path / "live.key")
    install(root.sign("server"), live)
    certificates = Certificates(live.certificate, live.key, None)
    (before,) = certificates.measurements()
    other = Pair(tmp_path / "other.crt", tmp_path / "other.key")
    subject = ("-subj", "/CN=server", "-days", "1")
    openssl("req", "-x509", *subject, "-newkey", *kind, "-nodes", "-keyout", other.key, "-out", other.certificate)
    install(other, live)
    with pytest.raises(ConfigurationError, match="of a kind unknown to gRPC"):
        certificates.reload()
    assert list(certificates.measurements()) == [before]


def test_roots_without_a_certificate_are_refused(root: Authority, tmp_path: Path) -> None:
    pair, settings, revoked = root.sign("server"), tmp_path / "ca.cnf", tmp_path / "revoked"
    (tmp_path / "index").touch()
    settings.write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={tmp_path}/index\ndefault_md=sha256\ndefault_crl_days=1\n"
    )
    signer = ("-keyfile", root.pair.key, "-cert", root.pair.certificate)
    openssl("ca", "-config", settings, "-gencrl", *signer, "-out", revoked)
    with pytest.raises(ConfigurationError, match=f"{revoked} holds no certificate"):
        Certificates(pair.certificate, pair.key, revoked)


def test_files_that_are_replaced_by_others_while_they_are_read_again_do_not_come_back(
    root: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = root.sign("first"), root.sign("second")
    certificates = Certificates(first.certificate, first.key, None)
    read = tls._Paths.read

    def read_slowly(paths: tls._Paths) -> tls._Files:
        files = read(paths)
        if paths.certificate == first.certificate:
            certificates.prepare(second.certificate, second.key, None)()
        return files

    monkeypatch.setattr(tls._Paths, "read", read_slowly)
    certificates.reload()
    assert certificates.paths == (second.certificate, second.key)


def test_a_reload_takes_nothing_back_that_the_watcher_has_taken_over(root: Authority, tmp_path: Path) -> None:
    live, tokens = Pair(tmp_path / "live.crt", tmp_path / "live.key"), tmp_path / "tokens"
    install(root.sign("server"), live)
    tokens.write_text(line("first", "admin"))
    paths = {"certificate": live.certificate, "key": live.key}
    control = AccessControl(ServerSettings(tls=TlsSettings(**paths), tokens=tokens), ())
    names = TlsSettings(**paths, subjects={"dns:a": Role.ADMIN})
    change = control.prepare(ServerSettings(tls=names, tokens=tokens))
    install(newer := root.sign("server", dates=("20240101000000Z", "20480101000000Z"), file="newer"), live)
    tokens.write_text(line("second", "admin"))
    for source in control._sources().values():
        source.reload()
    change()
    assert control.tokens is not None
    assert control.tokens.find("second")
    (expiry,) = (item.value for item in control.measurements() if item.name.endswith("certificate.expiry"))
    assert expiry == expiry_of(newer.certificate.read_text())


def test_roots_that_go_are_told_and_roots_that_come_are_not(root: Authority, tmp_path: Path) -> None:
    other, pair, file = Authority(tmp_path, "other"), root.sign("server"), tmp_path / "roots"
    first, second = root.pair.certificate.read_text(), other.pair.certificate.read_text()
    file.write_text(first)
    certificates = Certificates(pair.certificate, pair.key, file)
    removals: list[str] = []
    for text, count in [
        (first + second, 0),
        (f"# the same\n{second}{first}", 0),
        (second, 1),
        (second, 1),
        (first, 2),
    ]:
        file.write_text(text)
        certificates.on_roots_removed = lambda: removals.append("removed")
        certificates.reload()
        assert len(removals) == count, text


def test_the_first_root_that_expires_is_measured(root: Authority, tmp_path: Path) -> None:
    pair, file = root.sign("server"), tmp_path / "roots"
    file.write_bytes(root.pair.certificate.read_bytes())
    values = {
        measurement.attributes["certificate"]: (measurement.name, measurement.value)
        for measurement in Certificates(pair.certificate, pair.key, file).measurements()
    }
    assert values.keys() == {"server", "client_ca"}
    assert {name for name, _ in values.values()} == {"abstractllm.server.certificate.expiry"}
