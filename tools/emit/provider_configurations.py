"""The configuration classes of the library's own providers, which some generators read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abstractllm.config import LLMConfig

__all__ = ["provider_configurations"]

NOT_FOR_USERS = {"scripted"}
"""Providers that exist for tests alone."""


def provider_configurations() -> dict[str, type[LLMConfig]]:
    """Returns the configuration class of each provider by the provider's name.

    Providers of other packages, which this machine happens to have installed, are not among them: what is generated
    must be the same everywhere.
    """
    # The library is imported here, not above: the modules that it needs may be generated in the same run.
    from abstractllm.factory import _PROVIDERS, provider_class

    return {name: provider_class(name).config_type for name in sorted(_PROVIDERS) if name not in NOT_FOR_USERS}
