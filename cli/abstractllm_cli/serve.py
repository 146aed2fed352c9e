"""`abstractllm serve`: the gRPC server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._output import note, print_failure

if TYPE_CHECKING:
    from pathlib import Path

    from abstractllm_server.settings import ServerSettings

EXIT_MISCONFIGURED = 2


def serve(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="A hub id, a directory, a hosted model's name.  [default: demo]"),
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Whose model it is.  [default: huggingface]")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", metavar="NAME", help="What clients call this LLM.  [default: the provider's name]"),
    ] = None,
    config: options.Config = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="The network address to listen on.  [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65535, help="The port; 0 takes a free one.  [default: 50051]"
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let other machines in without credentials, if --host is theirs to reach."),
    ] = False,
    monitoring: Annotated[
        str | None,
        typer.Option(
            "--monitoring", metavar="HOST:PORT", help="Where /metrics, /livez and /readyz are, over plain HTTP."
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option("--health", metavar="HOST:PORT", help="Where grpc.health.v1 alone is, without credentials."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option("--log-level", help="What to log on the standard error.  [default: info]", show_default=False),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="The form of the log.  [default: text]", show_default=False),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the configuration and the files that it names, tell every fault, and exit."
        ),
    ] = False,
) -> None:
    """Serve the LLMs of --config, or one that the options describe, until Ctrl-C or SIGTERM.

    It answers health checks at once and loads the default LLM meanwhile. --host and --port together replace the address
    of the configuration file.
    """
    # First of all: a signal that comes while the rest is imported, which takes a second, must not end the process.
    from abstractllm_server.lifecycle.signals import ProcessSignals

    signals = ProcessSignals()
    signals.install()
    if config is not None:
        for name, value in (("--model", model), ("--provider", provider), ("--llm", llm)):
            if value is not None:
                options.usage("the file describes the LLMs: leave out this or --config", name)
    from abstractllm.errors import ConfigurationError
    from abstractllm_server.settings import faults_of, load_settings

    flags: dict[str, Any] = {
        "monitoring": monitoring,
        "health": health,
        "log_level": log_level,
        "log_format": log_format,
        "insecure": insecure or None,
        "listen": _listen(host, port),
    }
    if config is None:
        line = {"provider": provider or options.DEFAULT_PROVIDER, "model": model}
        flags["llms"] = {llm or line["provider"]: {key: value for key, value in line.items() if value is not None}}
    try:
        settings = load_settings(config, flags)
        if check:
            _check_rest(settings, config)
            return
    except ConfigurationError as error:
        for fault in faults_of(error):
            print_failure(fault, as_json=False)
        raise typer.Exit(EXIT_MISCONFIGURED) from None
    from abstractllm_server.app import run

    raise typer.Exit(run(settings, config, flags, signals))


def _check_rest(settings: ServerSettings, config: Path | None) -> None:
    """Makes the LLM of the options, reads the files of tokens and certificates, and warns of dangers, as a start does.

    Raises:
        ConfigurationError: If one cannot be used.
    """
    import logging

    from abstractllm.errors import ConfigurationError
    from abstractllm.registry import LLMRegistry
    from abstractllm_server.security.access_control import AccessControl
    from abstractllm_server.security.warnings import warn_of_file
    from abstractllm_server.settings import locate

    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    if config is not None:
        warn_of_file(config)
    try:
        if config is None:  # those of a file have been checked with it
            LLMRegistry.from_config(settings.llms)
        AccessControl(settings, ())
    except ConfigurationError as error:
        raise locate(error, config) from None
    note("the configuration has no fault")


def _listen(host: str | None, port: int | None) -> str | None:
    """The address that the options name; none if they name nothing."""
    if host is None and port is None:
        return None
    name, address = host or "127.0.0.1", options.DEFAULT_ADDRESS
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"{name}:{address.rpartition(':')[2] if port is None else port}"
