"""`abstractllm generate`: one prompt, one answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._answer import Answer, end_line, note_ending
from abstractllm_cli._llm import Target, open_llm
from abstractllm_cli._output import print_json, print_text, reporting
from abstractllm_cli._parameters import request_parameters
from abstractllm_cli._server import server_of


def generate(
    context: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            show_default=False,
            help="The prompt. `-`, or nothing where the standard input is not a terminal: read it from there.",
        ),
    ] = None,
    system: options.System = None,
    provider: options.Provider = None,
    model: options.Model = None,
    config: options.Config = None,
    llm: options.LLMName = None,
    address: options.Address = None,
    token: options.Token = None,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    root_certificates: options.RootCertificates = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            show_default=False,
            help="Write the answer as it comes, or when it is whole.  [default: as it comes; whole with --json]",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Write the whole completion as one JSON object; with --stream one for each event."),
    ] = False,
    option: options.ProviderOptions = None,
    timeout: options.Timeout = None,
) -> None:
    """Answer a prompt, in this process or with --address from a server.

    The answer goes to the standard output, everything else to the standard error.
    """
    target = Target(provider, model, config, llm, server_of(context))
    target.check()
    parameters = request_parameters(context) | target.parameters()
    if prompt is None and sys.stdin.isatty():
        options.usage("missing; give it as an argument or on the standard input", "PROMPT")
    text = _read_prompt() if prompt is None or prompt == "-" else prompt
    with reporting(as_json=as_json), open_llm(target) as opened:
        if as_json and stream:
            for event in opened.stream(text, system, **parameters):
                print_json(event)
        elif as_json:
            print_json(opened.complete(text, system, **parameters))
        elif stream is False:
            completion = opened.complete(text, system, **parameters)
            print_text(completion.text)
            end_line(completion.text)
            note_ending(completion)
        else:
            Answer().show(opened.stream(text, system, **parameters))


def _read_prompt() -> str:
    """The standard input, without the line end that `echo` and editors put last."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        options.usage(f"the standard input is not UTF-8 text (byte {error.start})", "PROMPT")
