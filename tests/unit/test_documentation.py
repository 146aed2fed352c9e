"""The pages that repeat what the code says are held against it."""

import re
from pathlib import Path

from abstractllm import errors
from abstractllm.errors import AbstractLLMError, ErrorReason
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm_server.convert.errors import status_of
from abstractllm_server.settings import ServerSettings


def test_the_table_of_errors_is_that_of_the_code(repository: Path) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \| (\w+) \| ([^|]+) \|", (repository / "docs/errors.md").read_text(), re.M
    )
    assert [row[0] for row in rows] == list(ErrorReason)
    for reason, name, code, retry in rows:
        kind: type[AbstractLLMError] = getattr(errors, name)
        error = kind("x", reason=ErrorReason(reason))
        assert status_of(error).code.name == code
        assert error.retryable == (retry.startswith("yes") or retry == "after RetryInfo"), reason


def test_every_key_of_the_server_and_of_a_local_llm_is_described(repository: Path) -> None:
    page = (repository / "docs/configuration.md").read_text()
    assert [key for key in ServerSettings.model_fields if f"`{key}`" not in page] == []
    page += (repository / "docs/providers/huggingface.md").read_text()
    assert [key for key in HuggingFaceConfig.known_keys() if f"`{key}" not in page] == []
