"""Local models through Hugging Face transformers, each in an engine process of its own."""

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.missing import missing_package

try:
    from abstractllm.providers.huggingface.config import HuggingFaceConfig
    from abstractllm.providers.huggingface.provider import HuggingFaceProvider
except ModuleNotFoundError as error:
    if error.name != "msgspec":
        raise
    raise ConfigurationError(missing_package(error.name)) from error

__all__ = ["HuggingFaceConfig", "HuggingFaceProvider"]
