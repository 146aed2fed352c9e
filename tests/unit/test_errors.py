"""Each reason has one class, and an error's causes are walked once each."""

import pytest

from abstractllm import errors
from abstractllm.errors import (
    AbstractLLMError,
    ErrorReason,
    InternalError,
    InvalidRequestError,
    cause_chain,
    error_class,
)


@pytest.mark.parametrize("reason", list(ErrorReason))
def test_every_reason_has_a_class_whose_reason_it_is(reason: ErrorReason) -> None:
    kind = error_class(reason)
    if reason is ErrorReason.MESSAGE_TOO_LARGE:
        assert kind is InvalidRequestError
    else:
        assert kind("x").reason is reason
    assert error_class(str(reason)) is kind


def test_every_class_but_the_roots_belongs_to_its_reason() -> None:
    kinds = {kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)}
    kinds -= {AbstractLLMError, ErrorReason, errors.UnknownProviderError}
    assert kinds == {error_class(reason) for reason in ErrorReason}


def test_a_reason_that_only_a_newer_version_knows_is_an_internal_error() -> None:
    assert error_class("NEXT_YEAR") is InternalError


def test_causes_come_latest_first_and_a_circle_ends() -> None:
    first, second, third = ValueError("1"), KeyError("2"), OSError("3")
    third.__cause__, second.__context__ = second, first
    assert list(cause_chain(third)) == [third, second, first]
    first.__cause__ = third
    assert list(cause_chain(third)) == [third, second, first]
