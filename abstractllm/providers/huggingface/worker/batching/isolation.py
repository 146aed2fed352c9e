"""Steps that are done for several requests at once, and that one of them must not spoil for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory

__all__ = ["run_isolated"]


def run_isolated(
    function: Callable[[Sequence[int]], None], indexes: Sequence[int], states: Sequence[SamplingState]
) -> None:
    """Does a step for some requests; if it fails, for each of them alone, and fails those for which it fails again.

    Args:
        function: Does the step for the requests with some indexes; where it has failed, it is called again.
        indexes: The indexes of the requests.
        states: The states of all requests.

    Raises:
        torch.AcceleratorError: If the device cannot be used any more.
    """
    try:
        if indexes:
            function(indexes)
    except Exception as error:
        if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
            raise
        if len(indexes) == 1:
            states[indexes[0]].error = error
            return
    else:
        return
    # Only here, the error does not hold the failed step's tensors any more.
    for index in indexes:
        run_isolated(function, [index], states)
