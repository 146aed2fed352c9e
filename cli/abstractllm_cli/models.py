"""`abstractllm models`: the models in a cache, on this machine or on a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._cache import open_cache
from abstractllm_cli._download import follow
from abstractllm_cli._output import note, print_json, print_table, print_text, reporting, size
from abstractllm_cli._server import Server, server_of

app = typer.Typer(
    help="The models in this machine's cache or, with --address, in a server's.",
    short_help="List, pull and delete cached models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", metavar="DIRECTORY", help="This machine's cache, if not the usual one.")
]
CacheProvider = Annotated[
    str | None,
    typer.Option("--provider", metavar="NAME", help="Whose cache on this machine.  [default: huggingface]"),
]
CacheLLM = Annotated[
    str | None,
    typer.Option("--llm", metavar="NAME", help="Whose cache on the server; the local engine's if absent."),
]
_TITLES = ("name", "size", "last used", "used by", "")


@app.command("list")
def list_(
    context: typer.Context,
    provider: CacheProvider = None,
    cache_dir: CacheDir = None,
    address: options.Address = None,
    llm: CacheLLM = None,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.AsJson = False,
) -> None:
    """List the cached models: name, size, last use and, on a server, the LLMs that use them."""
    server = server_of(context)
    _check(provider, cache_dir, server, llm)
    with reporting(as_json=as_json), open_cache(provider, cache_dir, server, llm) as cache:
        models = cache.list()
        if as_json:
            print_json({"models": models})
        else:
            print_table(_TITLES, [_row(model) for model in models])


@app.command("pull")
def pull(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="With --address: a model that the LLM's configuration lists, its own if absent. Else: any model.",
        ),
    ] = None,
    provider: CacheProvider = None,
    cache_dir: CacheDir = None,
    address: options.Address = None,
    llm: CacheLLM = None,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.AsJson = False,
) -> None:
    """Download a model into the cache; Ctrl-C stops it, and the next time goes on. With --json: a line a report."""
    server = server_of(context)
    _check(provider, cache_dir, server, llm)
    if server is None and model is None:
        options.usage("name the model to download", "MODEL")
    with (
        reporting(as_json=as_json),
        open_cache(provider, cache_dir, server, llm) as cache,
        closing(cache.pull(model)) as reports,
    ):
        if as_json:
            for report in reports:
                print_json(report)
        else:
            note(f"the model is whole: {size(follow(reports))}")


@app.command("clear")
def clear(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", show_default=False, help="The model to delete.")
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Delete every model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    provider: CacheProvider = None,
    cache_dir: CacheDir = None,
    address: options.Address = None,
    llm: CacheLLM = None,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete one model, or with --all every model, from the cache. It asks first.

    A refusal ends with exit code 1.
    """
    server = server_of(context)
    _check(provider, cache_dir, server, llm)
    if (model is None) != all_models:
        options.usage("name one model, or use --all", "MODEL")
    if not (yes or dry_run) and (as_json or not sys.stdin.isatty()):
        options.usage("there is no terminal to ask at: use --yes or --dry-run", "--yes")
    with reporting(as_json=as_json), open_cache(provider, cache_dir, server, llm) as cache:
        if not (yes or dry_run):
            removed, freed = cache.clear(model, dry_run=True)
            print_text("".join(f"{name}\n" for name in removed))
            if removed:
                typer.confirm(f"Delete {_count(removed)}, {size(freed)}?", err=True, abort=True)
        removed, freed = cache.clear(model, dry_run=dry_run)
        if as_json:
            print_json({"removed": removed, "freed_bytes": freed, "dry_run": dry_run})
            return
        if yes or dry_run:
            print_text("".join(f"{name}\n" for name in removed))
        note(f"{_count(removed)}, {size(freed)} {'would be deleted' if dry_run else 'deleted'}")


def _check(provider: str | None, cache_dir: Path | None, server: Server | None, llm: str | None) -> None:
    """Refuses options that contradict each other."""
    if server is None and llm is not None:
        options.usage("only a server has LLMs by name: set --address too", "--llm")
    if server is not None:
        for name, value in (("--provider", provider), ("--cache-dir", cache_dir)):
            if value is not None:
                options.usage("a server has its own cache: leave out this or --address", name)


def _count(names: Sequence[str]) -> str:
    return "1 model" if len(names) == 1 else f"{len(names)} models"


def _row(model: Any) -> list[str]:
    used = "" if model.last_used_time is None else f"{datetime.fromtimestamp(model.last_used_time):%Y-%m-%d %H:%M}"
    return [model.name, size(model.size_bytes), used, ", ".join(model.used_by), "not whole" if model.partial else ""]
