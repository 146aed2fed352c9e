"""The failures of a download, as the library's errors."""

from __future__ import annotations

import errno
import re

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined] # loaded lazily

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    InternalError,
    ModelNotFoundError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitedError,
    cause_chain,
)
from abstractllm.providers.huggingface.hub.downloader.messages import Pull

__all__ = ["as_library_error", "is_unreachable", "retry_after"]

_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def as_library_error(pull: Pull, error: Exception) -> AbstractLLMError:
    """Returns the library's error for whatever ends a download; it holds no token and no signed address."""
    failure = error if isinstance(error, AbstractLLMError) else _as_library_error(pull, error)
    failure.message = _scrubbed(f"model {pull.model}: {failure.message}")
    return failure


def is_unreachable(error: Exception) -> bool:
    """Returns True if the hub did not answer, or its answer says nothing about the model."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (httpx2.TransportError, OfflineModeIsEnabled))


def retry_after(error: HfHubHTTPError) -> float | None:
    """Returns the seconds that the hub asks to wait; None if it does not."""
    limit = parse_ratelimit_headers(error.response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = error.response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else None


def _as_library_error(pull: Pull, error: Exception) -> AbstractLLMError:
    for link in cause_chain(error):
        if (failure := _recognized(pull, link)) is not None:
            return failure
        if not isinstance(link, OSError):  # the hub's library wraps most failures in these
            break
    return InternalError(_described(link))


def _recognized(pull: Pull, error: BaseException) -> AbstractLLMError | None:
    match error:
        case HfHubHTTPError():
            return _refusal(pull, error)
        case OfflineModeIsEnabled():
            return ModelNotFoundError(
                "it is not in the cache, and HF_HUB_OFFLINE forbids to download it", field="model"
            )
        case HFValidationError():
            return ConfigurationError(
                f"this cannot be the name of a model on the hub: {_first_paragraph(error)}", field="model"
            )
        case httpx2.TransportError() | httpx2.HTTPError():
            return ProviderUnavailableError(
                f"the hub cannot be reached, or broke off; what is there is kept: {_described(error)}"
            )
        case OSError(errno=number) if number in _DISK_FULL:
            return ProviderUnavailableError(f"the disk of {pull.cache_dir} is full; what is there is kept")
        case OSError(errno=number) if number in _NOT_PERMITTED:
            return ConfigurationError(
                f"cache_dir: {pull.cache_dir} may not be written to: {error.strerror}", field="cache_dir"
            )
        case ValueError():
            return ProviderProtocolError(f"the hub's answer cannot be read: {_described(error)}")
    return None


def _refusal(pull: Pull, error: HfHubHTTPError) -> AbstractLLMError:
    status, text = error.response.status_code, _first_paragraph(error)
    kind: type[AbstractLLMError]
    match error:
        case GatedRepoError():
            kind, message = ProviderCredentialsError, f"the hub asks for a token that may read it: {text}"
        case RepositoryNotFoundError():
            kind, message = (
                ModelNotFoundError,
                "the hub has no model of this name, or a private one that needs a token",
            )
        case RevisionNotFoundError():
            kind, message = ModelNotFoundError, f"it has no revision {pull.revision!r}"
        case RemoteEntryNotFoundError():
            kind, message = ModelNotFoundError, f"the hub lacks one of its files: {text}"
        case _:
            kinds = {401: ProviderCredentialsError, 403: ProviderCredentialsError, 404: ModelNotFoundError}
            kinds[429] = RateLimitedError
            kind, message = kinds.get(status, ProviderUnavailableError), f"the hub answered: {text}"
    wait = retry_after(error) if kind.retryable else None
    field = "model" if kind is ModelNotFoundError else None
    return kind(f"{message} (HTTP {status})", upstream_status=status, retry_after=wait, field=field)


def _first_paragraph(error: BaseException) -> str:
    """Returns the first paragraph of a message of the hub's library, on one line."""
    return " ".join(str(error).split("\n\n")[0].split())[:300] or " ".join(str(error).split())[:300]


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_paragraph(error)}"


def _scrubbed(text: str) -> str:
    """Returns a text without the token, and without the queries of addresses, which may be signed."""
    token = get_token()
    if token:
        text = text.replace(token, "**********")
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
