"""The configuration of an LLM of OpenAI, or of a server that speaks its format."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from abstractllm.errors import ConfigurationError
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.hosted import HostedConfig
from abstractllm.providers.openai.models import COMPATIBLE, DEFAULT_MODEL, Family, family_of

__all__ = ["OPENAI_URL", "OpenAIConfig", "is_openai"]

OPENAI_URL = "https://api.openai.com/v1"


def is_openai(base_url: str | None) -> bool:
    """Tells whether an address is OpenAI's, regional ones included."""
    try:
        host = urlsplit(base_url or OPENAI_URL).hostname or ""
    except ValueError:  # not an address: the check of the configuration refuses it
        return False
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _check_parameters(names: tuple[str, ...]) -> tuple[str, ...]:
    known = [name for name in GENERATION_PARAMETERS if name != "model"]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return names


class OpenAIConfig(HostedConfig):
    """The keys of an LLM of OpenAI, or of a server that speaks its Chat Completions format."""

    model: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_MODEL
    organization: Annotated[str, Field(pattern=r"^[!-~]*$")] | None = None
    project: Annotated[str, Field(pattern=r"^[!-~]*$")] | None = None
    max_tokens_parameter: Literal["max_completion_tokens", "max_tokens"] | None = None
    """The wire's name for `max_tokens`; if absent `max_completion_tokens` at OpenAI, `max_tokens` elsewhere."""
    accepted_parameters: Annotated[tuple[str, ...], AfterValidator(_check_parameters)] | None = None
    """The generation parameters that the model takes; if absent those of its family."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields that are put over those of each request's body, for a compatible server; None takes a field away."""
    send_reasoning: bool = True
    """Give reasoning of earlier turns back to the server that it came from, where tools are used."""

    connection_keys: ClassVar[tuple[str, ...]] = (*HostedConfig.connection_keys, "organization", "project")

    @property
    def official(self) -> bool:
        """True if the LLM is one of OpenAI, not of a compatible server."""
        return is_openai(self.base_url)

    def family(self, model: str) -> Family:
        """Returns the family that `model` belongs to."""
        return family_of(model) if self.official else COMPATIBLE

    def parameters_of(self, model: str) -> tuple[str, ...]:
        """Returns the generation parameters that `model` takes, in the contract's order."""
        accepted = self.accepted_parameters
        accepted = self.family(model).parameters if accepted is None else accepted
        return tuple(name for name in GENERATION_PARAMETERS if name in accepted)

    @property
    def token_limit_name(self) -> str:
        """The wire's name for `max_tokens`."""
        return self.max_tokens_parameter or ("max_completion_tokens" if self.official else "max_tokens")

    @classmethod
    def _build(cls, values: dict[str, Any]) -> Self:
        config = super()._build(values)
        if not config.official and "model" not in config.model_fields_set:
            raise ConfigurationError("model: must be set for a server that is not OpenAI's", field="model")
        return config
