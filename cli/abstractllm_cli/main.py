"""The command `abstractllm`: its groups of commands, and how each run of it ends.

`abstractllm serve` has to answer a health check within a second of starting, so nothing is imported here that a
command may not need: the library, the client, the server, rich and every SDK come with the command that uses them.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from abstractllm_cli import chat, config, generate, llms, models, serve, token
from abstractllm_cli._parameters import ParameterCommand

app = typer.Typer(
    name="abstractllm",
    help="Text from local and hosted language models, in this process or from a server.\n\n"
    "Exit codes: 0 done, 1 the request failed (`error: REASON: message` on the standard error, with --json one JSON "
    'object {"error": ...} on the standard output instead), 2 wrong usage, 130 stopped by Ctrl-C, 141 the reader of '
    "the output left.",
    no_args_is_help=True,
    # Plain help: rich takes a tenth of a second to import.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", short_help="Run the gRPC server.")(serve.serve)
app.command("generate", cls=ParameterCommand, short_help="Answer a prompt.")(generate.generate)
app.command("chat", cls=ParameterCommand, short_help="Talk with a model, line by line.")(chat.chat)
app.command("llms", short_help="List LLMs, or the providers of LLMs.")(llms.llms)
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.add_typer(token.app, name="token")


def _show_version(wanted: bool) -> None:
    if wanted:
        import abstractllm

        typer.echo(f"abstractllm {abstractllm.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command on the process's own arguments and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character must not end the answer.
            stream.reconfigure(errors="replace")
    app(prog_name="abstractllm")
