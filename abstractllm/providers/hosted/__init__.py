"""The base of providers that ask an HTTP API: clients, limits, errors, and the class that puts them together.

Providers of other packages may build on it, too: see `docs/writing-a-provider.md`.
"""

from abstractllm.providers.hosted.config import HostedConfig
from abstractllm.providers.hosted.error_reports import ErrorReport, read_report
from abstractllm.providers.hosted.errors import (
    retry_after,
    status_error,
    transport_error,
    unknown_finish_reason,
    upstream_error,
)
from abstractllm.providers.hosted.finish_reasons import finish_reason_of
from abstractllm.providers.hosted.json_values import read_count, read_logprob, read_optional_text, read_text
from abstractllm.providers.hosted.limits import http_arguments
from abstractllm.providers.hosted.provider import HostedProvider, import_sdk
from abstractllm.providers.hosted.refusals import Refusal, classify

__all__ = [
    "ErrorReport",
    "HostedConfig",
    "HostedProvider",
    "Refusal",
    "classify",
    "finish_reason_of",
    "http_arguments",
    "import_sdk",
    "read_count",
    "read_logprob",
    "read_optional_text",
    "read_report",
    "read_text",
    "retry_after",
    "status_error",
    "transport_error",
    "unknown_finish_reason",
    "upstream_error",
]
