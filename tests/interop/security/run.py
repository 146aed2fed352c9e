from collections.abc import Callable
from pathlib import Path

from abstractllm_client import AbstractLLMError, RemoteLLM
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs, servers = task.input, task.servers
    roots = Path(servers["root_certificates"]).read_bytes()
    certificate = {
        "certificate_chain": Path(servers["client_certificate"]).read_bytes(),
        "private_key": Path(servers["client_key"]).read_bytes(),
    }

    def client(server: str, **options: object) -> RemoteLLM:
        return task.connect(server=server, timeout=inputs["timeout"], **options)

    def ask(server: str, **options: object) -> object:
        with client(server, **options) as llm:
            return outcome(lambda: llm.generate(inputs["prompt"]))

    def configure(server: str, **options: object) -> object:
        with client(server, root_certificates=roots, **options) as llm:
            return outcome(lambda: bool(llm.get_config()))

    others = Path(servers["other_root_certificates"]).read_bytes()
    return {
        "tls": ask("tls", root_certificates=roots),
        "mtls": ask("mtls", root_certificates=roots, **certificate),
        "token": ask("tokens", root_certificates=roots, token=servers["user_token"]),
        "admin": configure("tokens", token=servers["admin_token"]),
        "unix": ask("unix"),
        "distrusted": ask("tls", root_certificates=others),
        "without_certificate": ask("mtls", root_certificates=roots),
        "no_token": ask("tokens", root_certificates=roots),
        "wrong_token": ask("tokens", root_certificates=roots, token=inputs["wrong_token"]),
        "role": configure("tokens", token=servers["user_token"]),
        "certificate_role": configure("mtls", **certificate),
    }


def outcome(act: Callable[[], object]) -> object:
    try:
        return act()
    except AbstractLLMError as error:
        return {"class": type(error).__name__, "reason": str(error.reason)}
