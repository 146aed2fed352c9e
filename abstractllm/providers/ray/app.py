"""An LLM's replicas as an application of Ray Serve's own configuration: for clusters that KubeRay makes.

A Serve configuration (`serveConfigV2` of a RayService) names `abstractllm.providers.ray.app:build` as `import_path`,
and gives the LLM's name and its line of the configuration file as `args`. Servers use it with `deploy: false`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from abstractllm.errors import ConfigurationError
from abstractllm.providers.ray.config import keys_of, served_values
from abstractllm.providers.ray.deployment import Definition, application_of
from abstractllm.providers.ray.provider import RayProvider

__all__ = ["build"]


def build(args: Mapping[str, Any]) -> Any:
    """Returns the application of an LLM.

    Example:
        ```yaml
        applications:
          - name: abstractllm-qwen
            import_path: abstractllm.providers.ray.app:build
            args: {llm: qwen, model: Qwen/Qwen3-0.6B, replicas: 2, num_gpus: 1}
        ```

    Args:
        args: `llm`, the LLM's name, and the keys of its line, `provider` left out.

    Raises:
        ConfigurationError: Naming the key that is wrong.
    """
    values = dict(args)
    name = values.pop("llm", None)
    values.pop("provider", None)
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"llm: must be the LLM's name, got {name!r:.80}", field="llm", requested=name)
    config = RayProvider(values).config
    definition = Definition(name, keys_of(config), served_values(config))
    return application_of(definition, (time.time_ns() // 1_000_000, 0))
