"""The Python client of AbstractLLM: text from local and hosted language models over one gRPC service.

Example:
    ```python
    from abstractllm_client import RemoteLLM

    with RemoteLLM("127.0.0.1:50051") as llm:
        print(llm.generate("What is the capital of France?", temperature=0))
    ```
"""

from abstractllm_client._aio import AsyncRemoteLLM
from abstractllm_client._sync import RemoteLLM
from abstractllm_client.answers import *  # noqa: F403
from abstractllm_client.answers import __all__ as _answers
from abstractllm_client.enums import *  # noqa: F403
from abstractllm_client.enums import __all__ as _enums
from abstractllm_client.errors import *  # noqa: F403
from abstractllm_client.errors import __all__ as _errors
from abstractllm_client.messages import *  # noqa: F403
from abstractllm_client.messages import __all__ as _messages
from abstractllm_client.options import *  # noqa: F403
from abstractllm_client.options import __all__ as _options

__version__ = "0.1.0"

__all__ = ["AsyncRemoteLLM", "RemoteLLM", "__version__", *_answers, *_enums, *_errors, *_messages, *_options]
