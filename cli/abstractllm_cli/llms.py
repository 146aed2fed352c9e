"""`abstractllm llms`: the LLMs of a server or of a configuration, or the providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._llm import read_registry
from abstractllm_cli._output import print_json, print_table, reporting, size
from abstractllm_cli._server import server_of

_TITLES = ("name", "provider", "model", "state", "device", "memory", "running", "queued", "why")


def llms(
    context: typer.Context,
    config: options.Config = None,
    address: options.Address = None,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.AsJson = False,
) -> None:
    """List the LLMs of a server (--address) or of a configuration file (--config), else the installed providers.

    The default LLM is marked with an asterisk.
    """
    server = server_of(context)
    if server is not None and config is not None:
        options.usage("a server has its own configuration: leave out --config or --address", "--config")
    with reporting(as_json=as_json):
        if server is None and config is None:
            _print_providers(as_json)
            return
        if server is not None:
            with server.connect(timeout=options.SHORT_CALL_SECONDS) as remote:
                infos: Sequence[Any] = remote.list_llms()
        elif config is not None:
            infos = read_registry(config).list()
        if as_json:
            print_json({"llms": infos})
        else:
            print_table(_TITLES, [_row(info) for info in infos])


def _row(llm: Any) -> list[str]:
    return [
        llm.name + ("*" if llm.is_default else ""),
        llm.provider,
        llm.model,
        str(llm.state),
        llm.device,
        size(llm.memory_bytes),
        str(llm.running),
        str(llm.queued),
        llm.state_reason,
    ]


def _print_providers(as_json: bool) -> None:
    from abstractllm import available_providers

    providers = available_providers()
    if as_json:
        print_json({"providers": [{"name": name} for name in providers]})
    else:
        print_table(("provider",), [[name] for name in providers])
