"""What went wrong in a download, as the library's errors."""

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
)
from abstractllm.providers.huggingface.hub.downloader.messages import Pull

__all__ = ["explained", "is_unreachable", "retry_after"]

_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def explained(pull: Pull, error: Exception) -> AbstractLLMError:
    """The library's error for whatever ends a download; it holds no token and no signed address."""
    found = error if isinstance(error, AbstractLLMError) else _kind(pull, error)
    found.message = _scrubbed(f"model {pull.model}: {found.message}")
    return found


def is_unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer, or only one that says nothing about the model."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (httpx2.TransportError, OfflineModeIsEnabled))


def retry_after(error: HfHubHTTPError) -> float | None:
    """The seconds that the hub asks to wait."""
    limit = parse_ratelimit_headers(error.response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = error.response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else None


def _kind(pull: Pull, error: Exception) -> AbstractLLMError:
    match error:
        case HfHubHTTPError():
            return _refusal(pull, error)
        case OfflineModeIsEnabled():
            return ModelNotFoundError(
                "it is not in the cache, and HF_HUB_OFFLINE forbids to download it", field="model"
            )
        case HFValidationError():
            return ConfigurationError(f"no name of a model on the hub: {_first_lines(error)}", field="model")
        case httpx2.TransportError() | httpx2.HTTPError():
            return ProviderUnavailableError(
                f"the hub cannot be reached, or broke off; what is there is kept: {_words(error)}"
            )
        case OSError(errno=number) if number in _FULL:
            return ProviderUnavailableError(f"the disk of {pull.cache_dir} is full; what is there is kept")
        case OSError(errno=number) if number in _NO_RIGHT:
            return ConfigurationError(
                f"cache_dir: {pull.cache_dir} may not be written to: {error.strerror}", field="cache_dir"
            )
        case OSError() if (cause := error.__cause__ or error.__context__) and isinstance(cause, Exception):
            return _kind(pull, cause)  # the hub's library puts its own words around most failures
        case ValueError():
            return ProviderProtocolError(f"the hub's answer cannot be read: {_words(error)}")
    return InternalError(_words(error))


def _refusal(pull: Pull, error: HfHubHTTPError) -> AbstractLLMError:
    status, words = error.response.status_code, _first_lines(error)
    kind: type[AbstractLLMError]
    match error:
        case GatedRepoError():
            kind, text = ProviderCredentialsError, f"the hub asks for a token that may read it: {words}"
        case RepositoryNotFoundError():
            kind, text = (
                ModelNotFoundError,
                "the hub has none of this name, or a private one that no token was given for",
            )
        case RevisionNotFoundError():
            kind, text = ModelNotFoundError, f"it has no revision {pull.revision!r}"
        case RemoteEntryNotFoundError():
            kind, text = ModelNotFoundError, f"the hub lacks one of its files: {words}"
        case _:
            kinds = {401: ProviderCredentialsError, 403: ProviderCredentialsError, 404: ModelNotFoundError}
            kinds[429] = RateLimitedError
            kind, text = kinds.get(status, ProviderUnavailableError), f"the hub answered: {words}"
    wait = retry_after(error) if kind.retryable else None
    field = "model" if kind is ModelNotFoundError else None
    return kind(f"{text} (HTTP {status})", upstream_status=status, retry_after=wait, field=field)


def _first_lines(error: Exception) -> str:
    """The first sentence that a message of the hub's library holds."""
    return " ".join(str(error).split("\n\n")[0].split())[:300] or " ".join(str(error).split())[:300]


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_lines(error)}"


def _scrubbed(text: str) -> str:
    """A text without the token, and without the queries of addresses, which may be signed."""
    token = get_token()
    if token:
        text = text.replace(token, "**********")
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
