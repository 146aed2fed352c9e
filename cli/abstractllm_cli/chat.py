"""`abstractllm chat`: a conversation, line by line."""

from __future__ import annotations

import sys
from typing import Any

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._answer import Answer
from abstractllm_cli._llm import LLM, Message, Target, open_llm
from abstractllm_cli._output import Failure, note, print_failure, reporting
from abstractllm_cli._parameters import request_parameters
from abstractllm_cli._server import server_of

_HELP = """\
/system TEXT   set the system prompt; without TEXT: remove it
/reset         forget the conversation, keep the system prompt
/quit          leave, as Ctrl-D does
Ctrl-C         stop the answer
A line that starts with a space is sent even where a / follows."""


def chat(
    context: typer.Context,
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
    option: options.ProviderOptions = None,
    timeout: options.Timeout = None,
) -> None:
    """Talk with a model, in this process or with --address on a server.

    Each line is sent together with the conversation before it. /help lists the commands inside. On a terminal a failed
    request is shown and the conversation goes on; where the standard input is not a terminal, it ends the command.
    """
    target = Target(provider, model, config, llm, server_of(context))
    target.check()
    parameters = request_parameters(context) | target.parameters()
    with reporting(as_json=False), open_llm(target) as opened:
        conversation = Conversation(opened, system, parameters)
        if sys.stdin.isatty() and sys.stdout.isatty():
            _talk(conversation)
        else:
            for line in sys.stdin:
                if not conversation.handle(line.removesuffix("\n")):
                    break


def _talk(conversation: Conversation) -> None:
    """Reads lines from a person at a terminal."""
    import readline  # noqa: F401  (gives `input` a history and an editable line)

    note("/help lists the commands, Ctrl-D leaves")
    while True:
        try:
            line = input("> ")
        except EOFError:
            note("")
            return
        except KeyboardInterrupt:
            note("")
            continue
        try:
            if not conversation.handle(line):
                return
        except KeyboardInterrupt:
            note("(stopped)")
        except Exception as error:
            if not isinstance(error, Failure):
                raise
            print_failure(error, as_json=False)


class Conversation:
    """A conversation with an LLM.

    Args:
        llm: The LLM.
        system: The system prompt.
        parameters: The parameters of every request.
    """

    def __init__(self, llm: LLM, system: str | None, parameters: dict[str, Any]) -> None:
        self._llm = llm
        self._system = system
        self._parameters = parameters
        self._messages: list[Message] = []

    def handle(self, line: str) -> bool:
        """Carries out a line that is a command, and answers any other; blank ones are ignored.

        Returns:
            Whether the conversation goes on.

        Raises:
            AbstractLLMError: The library's or the client's, if there is no answer; the line is forgotten then.
            KeyboardInterrupt: If the answer is interrupted; the part that came stays in the conversation.
        """
        if not line.strip():
            return True
        if not line.startswith("/"):
            self._answer(line)
            return True
        command, _, text = line.partition(" ")
        match command:
            case "/quit":
                return False
            case "/reset":
                self._messages.clear()
                note("(conversation forgotten)")
            case "/system":
                self._system = text.strip() or None
                note("(system prompt set)" if self._system else "(system prompt removed)")
            case "/help":
                note(_HELP)
            case _:
                note(f"unknown command {command}; /help lists them")
        return True

    def _answer(self, line: str) -> None:
        messages = [*self._messages, {"role": "user", "content": line}]
        answer = Answer()
        try:
            answer.show(self._llm.stream(messages, self._system, **self._parameters))
        except KeyboardInterrupt:
            if answer.text:
                self._messages = [*messages, {"role": "assistant", "content": answer.text}]
            raise
        if answer.message is not None and answer.message.parts:
            self._messages = [*messages, answer.message]
