"""The files of TLS, read again while a server runs."""

import shutil
from pathlib import Path

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.certificate_validity import expiry_of
from abstractllm_server.security.tls import Certificates
from tests.server.certificates import FUTURE, PAST, Authority, Pair


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("root"))


def install(pair: Pair, live: Pair) -> None:
    shutil.copy(pair.certificate, live.certificate)
    shutil.copy(pair.key, live.key)


@pytest.mark.parametrize(("dates", "fault"), [(PAST, "has expired"), (FUTURE, "is not valid yet")])
def test_a_valid_certificate_does_not_give_way_to_one_that_is_not(
    root: Authority, tmp_path: Path, dates: tuple[str, str], fault: str
) -> None:
    live, other = Pair(tmp_path / "live.crt", tmp_path / "live.key"), root.sign("server", dates=dates, file="other")
    install(root.sign("server", file="valid"), live)
    certificates = Certificates(live.certificate, live.key, None)
    (before,) = certificates.measurements()
    install(other, live)
    with pytest.raises(ConfigurationError, match=fault):
        certificates.reload()
    assert list(certificates.measurements()) == [before]
    # One that starts with it has no better one.
    again = Certificates(live.certificate, live.key, None)
    again.reload()
    newer = root.sign("server", file="newer")
    install(newer, live)
    again.reload()
    (after,) = again.measurements()
    assert after.value == expiry_of(newer.certificate.read_text())


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
