"""Scripted LLMs behind a fallback."""

from abstractllm import Capabilities, create_llm
from abstractllm.testing import ScriptedProvider

EVERYTHING = ScriptedProvider()._capabilities
NOTHING = Capabilities(parameters=("max_tokens",))


def scripted(name="", *, capabilities=EVERYTHING, script=None, **config):
    """A scripted LLM with a name."""
    llm = ScriptedProvider(config, capabilities=capabilities, script=script)
    llm.name = name or "scripted"
    return llm


def failing(name, reason="PROVIDER_UNAVAILABLE", **facts):
    """An LLM that answers every request with an error."""
    return scripted(name, script=[{"error": reason, **facts}])


def saying(name, text=None, **config):
    """An LLM that answers every request with the same text."""
    return scripted(name, reply=text or f"{name} says", **config)


def falling_back(*llms, **config):
    """A fallback that asks its LLMs once."""
    llm = create_llm("fallback", llms=llms, **{"max_retries": 0} | config)
    llm.name = "best"
    return llm
