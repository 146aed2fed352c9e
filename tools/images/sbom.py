"""The bills of materials of the images, in CycloneDX's JSON, made of their locks.

    python -m tools.images.sbom [--output dist/sbom]

A bill lists the distributions that the lock names, each with its version, the hashes of its files, its licence as the
installed distribution states it, and what it depends on; our own two distributions; and the base image, by its name.
The packages of the base image are its maker's to list; nothing here looks into it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tools.images import locks, source
from tools.images.locks import Locked, read
from tools.images.variants import IMAGES, MACHINES, OURS, ROOT, Variant

_LONGEST_LICENCE = 80
"""Characters; some distributions give the whole text where a name belongs."""
_CLASSIFIER = "License :: "
_LICENCES = LicenseFactory()


def bill(variant: Variant, revision: source.Revision) -> str:
    """Returns the bill of an image, as JSON that has been held against CycloneDX's schema.

    Raises:
        ValueError: If the lock cannot be read, or the bill is not what the schema asks for.
    """
    locked = read(variant)
    image = Component(
        type=ComponentType.CONTAINER,
        name="abstractllm",
        version=f"{revision.version}-{variant.name}",
        bom_ref=f"image/{variant.name}",
        description="AbstractLLM over gRPC",
        licenses=[_LICENCES.make_from_string("MIT")],
        properties=[
            Property(name="abstractllm:commit", value=revision.commit),
            Property(name="abstractllm:lock", value=variant.lock.relative_to(ROOT).as_posix()),
            Property(name="abstractllm:machines", value=" ".join(MACHINES)),
            Property(name="abstractllm:python", value=variant.python),
        ],
    )
    components = {entry.name: _component(entry) for entry in locked}
    components |= {name: _own(name, revision.version) for name in sorted(OURS)}
    base = _base(variant)
    seed = hashlib.sha256("\n".join([variant.name, revision.commit, *(entry.text for entry in locked)]).encode())
    bom = Bom(
        components=[base, *components.values()],
        serial_number=uuid.UUID(bytes=seed.digest()[:16], version=4),
        metadata=BomMetaData(component=image, timestamp=datetime.fromtimestamp(revision.seconds, UTC)),
    )
    bom.register_dependency(image, [base, *(components[name] for name in sorted(OURS))])
    needs = [locks.needs(variant, machine) for machine in MACHINES]
    for name, component in components.items():
        named: set[str] = set().union(*(known.get("" if name in OURS else name, ()) for known in needs))
        # What the image leaves out stands between: what that needs, and is there, is needed all the same.
        for absent in named - components.keys():
            named = named.union(*(known.get(absent, ()) for known in needs))
        bom.register_dependency(component, [components[need] for need in sorted(named & components.keys() - {name})])
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if faults := check(text):
        raise ValueError(f"the bill of {variant.name}: {faults}")
    return text


def check(text: str) -> str:
    """Returns the fault of a bill that CycloneDX's schema finds; nothing if there is none."""
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return "" if fault is None else str(fault)


def _component(locked: Locked) -> Component:
    purl = PackageURL("pypi", name=locked.name, version=locked.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=value.partition(":")[2]) for value in locked.hashes]
    return Component(
        name=locked.name,
        version=locked.version,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=_licences_of(locked),
        # One of these is the file that is installed, which one depends on the machine.
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(purl.to_string()),
                comment="the files of this version",
                hashes=hashes,
            )
        ],
        properties=[Property(name="abstractllm:marker", value=locked.marker)] if locked.marker else (),
    )


def _own(name: str, version: str) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    licences = [_LICENCES.make_from_string("MIT")]
    return Component(name=name, version=version, bom_ref=purl.to_string(), purl=purl, licenses=licences)


def _base(variant: Variant) -> Component:
    name, _, digest = source.base_image(variant.name).partition("@")
    image, _, tag = name.rpartition(":")
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])] if digest else ()
    namespace, _, short = image.rpartition("/")
    purl = PackageURL("docker", namespace=namespace or None, name=short, version=tag)
    return Component(
        type=ComponentType.CONTAINER,
        name=image,
        version=tag,
        bom_ref=purl.to_string(),
        purl=purl,
        hashes=hashes,
        properties=[Property(name="abstractllm:contents", value="not listed here")],
    )


def _installed(name: str, version: str) -> Distribution | None:
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return None
    return installed if version == installed.version else None


def _licences_of(locked: Locked) -> Iterable[License]:
    """Returns the licence as the installed distribution of that version states it; nothing where it does not."""
    installed = _installed(locked.name, locked.version)
    if installed is None:
        return ()
    metadata: Any = installed.metadata
    if expression := metadata.get("License-Expression"):
        return [_LICENCES.make_from_string(expression)]
    classifiers = [text for text in metadata.get_all("Classifier") or () if text.startswith(_CLASSIFIER)]
    names = [text.rpartition(" :: ")[2] for text in classifiers if text != f"{_CLASSIFIER}OSI Approved"]
    stated = (metadata.get("License") or "").strip()
    if stated and "\n" not in stated and len(stated) <= _LONGEST_LICENCE and stated != "UNKNOWN":
        return [_LICENCES.make_from_string(stated)]
    return [_LICENCES.make_with_name(name) for name in names]


def write(output: Path, revision: source.Revision) -> list[Path]:
    """Writes the bill of each image into a folder, and returns the files.

    Raises:
        ValueError: If a lock cannot be read, or a bill is not what the schema asks for.
    """
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for variant in IMAGES:
        path = output / f"abstractllm-{revision.version}-{variant.name}.cdx.json"
        path.write_text(bill(variant, revision), "utf-8")
        files.append(path)
    return files


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Write the bills of materials of the images.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist/sbom", help="the folder that they are written to")
    try:
        files = write(parser.parse_args().output, source.revision())
    except (source.SourceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in files:
        components = json.loads(path.read_text("utf-8"))["components"]
        licensed = sum("licenses" in component for component in components)
        print(f"{len(components):>4} components, {licensed} with a licence  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
