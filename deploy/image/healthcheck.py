"""Asks a server whether it is alive: `python healthcheck.py [HOST:PORT]`, exit code 0 if it is.

It asks `/livez` of the port for monitoring, by default the one that the image's ABSTRACTLLM_MONITORING names: plain
HTTP without credentials, whatever the callers' port asks for. Alive is not ready: a container whose model still loads
is not to be restarted, nor one that lets its last answers end.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4.0


def main(address: str) -> None:
    """Exits with a message unless the server, at its port for monitoring, says within four seconds that it is alive."""
    host, _, port = address.rpartition(":")
    if host.strip("[]") in ("", "0.0.0.0", "::"):
        host = "localhost"
    connection = http.client.HTTPConnection(f"{host}:{port}", timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        text = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{address}: {type(error).__name__}: {error}")
    finally:
        connection.close()
    if answer.status != http.client.OK:
        sys.exit(f"{address}: {answer.status} {text}")


if __name__ == "__main__":
    addresses = sys.argv[1:] or [address for address in [os.environ.get("ABSTRACTLLM_MONITORING")] if address]
    if len(addresses) != 1:
        sys.exit("usage: python healthcheck.py [HOST:PORT]; by default what ABSTRACTLLM_MONITORING names")
    main(addresses[0])
