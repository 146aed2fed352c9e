"""AbstractLLM: one interface to local and hosted language models.

Example:
    ```python
    from abstractllm import create_llm

    with create_llm("huggingface") as llm:
        print(llm.generate("What is the capital of France?", temperature=0))
    ```

Importing this package imports no provider's SDK and no torch; those come with the first LLM that needs them.
"""

from abstractllm.config import ConfigValues
from abstractllm.errors import *  # noqa: F403
from abstractllm.errors import __all__ as _errors
from abstractllm.factory import available_providers, create_llm
from abstractllm.interface import AbstractLLMInterface
from abstractllm.llm import LLM
from abstractllm.parameters import GenerationParameters
from abstractllm.registry import LLMRegistry
from abstractllm.requests import GenerationOptions, GenerationRequest
from abstractllm.types import *  # noqa: F403
from abstractllm.types import __all__ as _types

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AbstractLLMInterface",
    "ConfigValues",
    "GenerationOptions",
    "GenerationParameters",
    "GenerationRequest",
    "LLMRegistry",
    "__version__",
    "available_providers",
    "create_llm",
    *_errors,
    *_types,
]
