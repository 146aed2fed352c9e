"""The provider `ray`: an LLM in any number of replicas, on one machine or many, by Ray Serve."""

from abstractllm.providers.ray.config import Autoscaling, ReplicaKeys
from abstractllm.providers.ray.provider import RayProvider

__all__ = ["Autoscaling", "RayProvider", "ReplicaKeys"]
