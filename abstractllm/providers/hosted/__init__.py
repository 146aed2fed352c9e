"""What the providers that ask an HTTP API share: clients, limits, errors, and the class that puts them together."""

from abstractllm.providers.hosted.errors import retry_after, status_error, transport_error, unknown_finish_reason
from abstractllm.providers.hosted.limits import http_arguments
from abstractllm.providers.hosted.provider import HostedConfig, HostedProvider, import_sdk

__all__ = [
    "HostedConfig",
    "HostedProvider",
    "http_arguments",
    "import_sdk",
    "retry_after",
    "status_error",
    "transport_error",
    "unknown_finish_reason",
]
