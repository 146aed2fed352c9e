"""`abstractllm config`: how an LLM on a server is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._output import print_json, print_text, reporting, to_plain
from abstractllm_cli._server import server_at

app = typer.Typer(
    help="Read and change how an LLM on a server is configured. It needs the admin role.",
    short_help="Read and change a server's LLMs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("get")
def get(
    context: typer.Context,
    llm: options.ServerLLM = None,
    address: options.ServerAddress = options.DEFAULT_ADDRESS,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.AsJson = False,
) -> None:
    """Print an LLM's configuration: YAML as in the configuration file; with --json its etag too."""
    server = server_at(context)
    with reporting(as_json=as_json), server.connect(llm, timeout=options.SHORT_CALL_SECONDS) as remote:
        config, etag = remote.get_config_and_etag()
        if as_json:
            print_json({"config": config, "etag": etag})
        else:
            _print_yaml(config)


@app.command("set")
def set_(
    context: typer.Context,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="What to change, such as temperature=0.2, stop='[\"END\"]' or seed=null, which clears it. JSON values "
            "are read as such, others as text.",
        ),
    ],
    llm: options.ServerLLM = None,
    address: options.ServerAddress = options.DEFAULT_ADDRESS,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    etag: Annotated[
        str,
        typer.Option(
            "--etag",
            metavar="ETAG",
            show_default=False,
            help="Change nothing (STALE_CONFIG) unless this is still the etag that `config get --json` shows.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and print what it would become.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Change an LLM's configuration for every caller of the server, from the next request on, and print it.

    Keys that are not named stay as they are; if one value is wrong, nothing is changed. Changing a loaded local model
    takes as long as loading the new one; Ctrl-C gives it up. A restart of the server returns to its configuration file.
    """
    values = options.read_pairs(changes, "KEY=VALUE")
    # The answer to a change of a local model comes when that is loaded; who gives up before has changed nothing.
    timeout = None if {"model", "quantization"} & values.keys() else options.SHORT_CALL_SECONDS
    server = server_at(context)
    with reporting(as_json=as_json), server.connect(llm, timeout=timeout) as remote:
        config = remote.set_config(values, etag=etag, validate_only=dry_run)
        if as_json:
            print_json({"config": config})
        else:
            _print_yaml(config)


def _print_yaml(config: Mapping[str, Any]) -> None:
    import yaml

    print_text(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True) if config else "")
