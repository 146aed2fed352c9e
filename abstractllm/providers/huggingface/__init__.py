"""Local models through Hugging Face transformers, each in an engine process of its own."""

from abstractllm.errors import ConfigurationError

try:
    from abstractllm.providers.huggingface.config import HuggingFaceConfig
    from abstractllm.providers.huggingface.provider import HuggingFaceProvider
except ModuleNotFoundError as error:
    if error.name != "msgspec":
        raise
    raise ConfigurationError(
        "the package msgspec is not installed; local models need: pip install 'abstractllm-grpc[huggingface]'"
    ) from error

__all__ = ["HuggingFaceConfig", "HuggingFaceProvider"]
