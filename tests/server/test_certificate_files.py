"""The files of TLS, read again while a server runs."""

import shutil
from pathlib import Path

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.tls import Certificates
from tests.server.certificates import Authority, Pair


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    return Authority(tmp_path_factory.mktemp("root"))


def install(pair: Pair, live: Pair) -> None:
    shutil.copy(pair.certificate, live.certificate)
    shutil.copy(pair.key, live.key)


def test_a_valid_certificate_does_not_give_way_to_an_expired_one(root: Authority, tmp_path: Path) -> None:
    live, expired = Pair(tmp_path / "live.crt", tmp_path / "live.key"), root.sign("server", days=-1, file="expired")
    install(root.sign("server", file="valid"), live)
    certificates = Certificates(live.certificate, live.key, None)
    (before,) = certificates.measurements()
    install(expired, live)
    with pytest.raises(ConfigurationError, match="has expired"):
        certificates.reload()
    assert list(certificates.measurements()) == [before]
    # One that starts with it has no better one.
    again = Certificates(live.certificate, live.key, None)
    again.reload()
    install(root.sign("server", file="newer"), live)
    again.reload()
    (after,) = again.measurements()
    assert after.value > before.value - 600


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
