"""The message where a package is missing that local models need."""

__all__ = ["missing_package"]


def missing_package(name: str | None) -> str:
    """Returns the message for a package of the extra `huggingface` that cannot be found.

    Args:
        name: The module.
    """
    return (
        f"the package {name} is not installed; local models need: pip install 'abstractllm-grpc[huggingface]', "
        "or, in a container, the image cpu or cuda instead of slim"
    )
