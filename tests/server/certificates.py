"""Certificates made on the spot, with the openssl command."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PAST, FUTURE = ("20200101000000Z", "20200102000000Z"), ("20490101000000Z", "20490201000000Z")
"""Times in which certificates are valid that are not now."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A root that signs certificates.

    Args:
        folder: Where its files are put.
        name: Its name.
    """

    def __init__(self, folder: Path, name: str = "root") -> None:
        self._folder = folder
        self.pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        openssl(
            "req", "-x509", "-subj", f"/CN={name}", "-days", "2", *new_key(self.pair), "-out", self.pair.certificate
        )

    def sign(
        self,
        name: str,
        *,
        dates: tuple[str, str] | None = None,
        host: str = "localhost",
        file: str = "",
        alternatives: str | None = None,
    ) -> Pair:
        """A certificate of this name, for a server on this host or a caller.

        Args:
            name: Its common name.
            dates: The beginning and the end of its validity; now, and in two days, if absent.
            host: The server's host.
            file: The name of its files, the common name if empty.
            alternatives: Its alternative names in openssl's words; the host, the name and 127.0.0.1 if absent.
        """
        pair = Pair(self._folder / f"{file or name}.crt", self._folder / f"{file or name}.key")
        signing_request, extensions = self._folder / "request.csr", self._folder / "extensions.cnf"
        openssl("req", "-new", "-subj", f"/CN={name}", *new_key(pair), "-out", signing_request)
        if alternatives is None:
            alternatives = f"DNS:{host},DNS:{name},IP:127.0.0.1"
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "basicConstraints=CA:FALSE\n")
        if dates is not None:  # `openssl x509` cannot date back
            self._sign_for(dates, signing_request, extensions, pair)
        else:
            ca = ("-CA", self.pair.certificate, "-CAkey", self.pair.key, "-CAcreateserial", "-days", 2)
            openssl("x509", "-req", "-in", signing_request, *ca, "-extfile", extensions, "-out", pair.certificate)
        return pair

    def _sign_for(self, dates: tuple[str, str], signing_request: Path, extensions: Path, pair: Pair) -> None:
        folder = self._folder
        (folder / "index.txt").write_text("")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index.txt\nrand_serial=yes\nnew_certs_dir={folder}\n"
            "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
        )
        validity = ("-startdate", dates[0], "-enddate", dates[1])
        ca = ("-config", folder / "ca.cnf", "-cert", self.pair.certificate, "-keyfile", self.pair.key, *validity)
        openssl(
            "ca", "-batch", *ca, "-in", signing_request, "-extfile", extensions, "-out", pair.certificate, "-notext"
        )


def new_key(pair: Pair) -> tuple[object, ...]:
    """Options that make a key without a password."""
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", pair.key


def openssl(*arguments: object, folder: Path | None = None) -> None:
    """Runs the command; its words are the error's. Without the command the test is skipped; with CI=true it fails.

    Args:
        arguments: Its arguments.
        folder: The folder to run it in.
    """
    if shutil.which("openssl") is None and os.environ.get("CI") != "true":
        pytest.skip("the openssl command is missing")
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
