"""Options that several commands share, and the reading of `KEY=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""The address that `abstractllm serve` listens on by default."""

DEFAULT_PROVIDER = "huggingface"
SHORT_CALL_SECONDS = 120.0
"""The time limit of calls that need no model."""

Provider = Annotated[
    str | None,
    typer.Option("--provider", metavar="NAME", help="The provider to use in this process.  [default: huggingface]"),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A hub id, a directory, a hosted model's name; the LLM's own default if absent. With --address or "
        "--config one of those that the LLM's configuration lists.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", exists=True, dir_okay=False, help="Use the LLMs of this YAML file."),
]
LLMName = Annotated[
    str | None,
    typer.Option(
        "--llm", metavar="NAME", help="The LLM of --config or of the server to use; the default one if absent."
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Use the server at this address instead of this process."),
]
ServerAddress = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The server's address.")]
ServerLLM = Annotated[
    str | None, typer.Option("--llm", metavar="NAME", help="The LLM of the server to use; the default one if absent.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="ABSTRACTLLM_TOKEN",
        show_envvar=True,
        help="Your token; safer in a file or the environment, as others can see a command's arguments.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", exists=True, dir_okay=False, help="A file that holds the token."),
]
Tls = Annotated[
    bool,
    typer.Option("--tls", help="Use TLS and trust the roots that come with gRPC; the three files below imply TLS."),
]
RootCertificates = Annotated[
    Path | None,
    typer.Option(
        "--root-certificates",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="PEM of the roots to trust for the server's certificate, instead of gRPC's.",
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="PEM of your certificate and the chain above it, for mutual TLS; with --key.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", exists=True, dir_okay=False, help="PEM of your certificate's key, without a password."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]

System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system prompt.")]
ProviderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the provider's own; repeatable. JSON values are read as such, others as text.",
    ),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up if the answer is not complete by then.")
]


def read_pairs(pairs: Sequence[str], name: str) -> dict[str, Any]:
    """Reads `KEY=VALUE` arguments; a value that is JSON (`0.5`, `true`, `null`, `"7"`, `[1]`) is read as such.

    Args:
        pairs: The arguments.
        name: The name of the argument on the command line.

    Raises:
        typer.BadParameter: For an argument without a key or `=`, and for a key that comes twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            usage(f"must be KEY=VALUE, got {pair!r}", name)
        if key in values:
            usage(f"{key} is given twice", name)
        values[key] = _read_value(text)
    return values


def _read_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return text


def _no_json(name: str) -> NoReturn:
    """Refuses NaN and Infinity, which Python's parser takes though JSON has no such numbers."""
    raise ValueError(name)


def usage(message: str, name: str) -> NoReturn:
    """Ends the command with exit code 2 and a message that names the wrong argument.

    Raises:
        typer.BadParameter: Always.
    """
    raise typer.BadParameter(message, param_hint=name)
