"""Kubernetes' own schemas, which the library reads anew for each document: here each is read once."""

from __future__ import annotations

from functools import cache

import kubernetes_validate.utils

from tests.deploy.helm import custom_resources
from tests.deploy.helm.rendering import Document

kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
kubernetes_validate.utils.all_versions = cache(kubernetes_validate.utils.all_versions)


def check(document: Document, version: str) -> None:
    """Fails where a document is not as a schema says, or has a key that the schema does not know.

    Args:
        document: One document of a rendering.
        version: Kubernetes' version.
    """
    if document["apiVersion"] in custom_resources.GROUPS:
        custom_resources.check(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)
