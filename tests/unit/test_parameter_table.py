"""The table of generation parameters is what the contract says, and what is generated from it follows it."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from abstractllm.parameters import GENERATION_PARAMETERS, MOST_ITEMS, GenerationParameters
from abstractllm_api.v1 import generation_pb2
from tools.emit import documentation, library
from tools.parameter_table import FILE, Bounds, Parameter, read_table

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Parameter(
    name="typical_p",
    number=15,
    kind="double",
    enum="",
    doc="Locally typical sampling; 1 is off.",
    unit="",
    range=Bounds(0, 1, excludes_minimum=True),
    length=None,
    items=None,
    keys=None,
)


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract's descriptors with their comments."""
    path = tmp_path_factory.mktemp("descriptors") / "contract.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "--as-file-descriptor-set", "--output", path], cwd=ROOT, check=True)
    return path


def changed(descriptors: Path, folder: Path, comment: str, **field: int) -> Path:
    """Writes a copy of the descriptors in which the field `temperature` has another comment, or another type."""
    files = FileDescriptorSet.FromString(descriptors.read_bytes())
    (file,) = (file for file in files.file if file.name == FILE)
    index = [message.name for message in file.message_type].index("GenerationParameters")
    names = [member.name for member in file.message_type[index].field]
    position = names.index("temperature")
    for name, value in field.items():
        setattr(file.message_type[index].field[position], name, value)
    (location,) = (
        location for location in file.source_code_info.location if list(location.path) == [4, index, 2, position]
    )
    location.leading_comments = comment
    path = folder / "changed.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def test_the_table_has_every_parameter_of_the_contract_in_its_order(descriptors: Path) -> None:
    table = read_table(descriptors)
    fields = generation_pb2.GenerationParameters.DESCRIPTOR.fields
    assert [(parameter.name, parameter.number) for parameter in table] == [(f.name, f.number) for f in fields]
    assert tuple(parameter.name for parameter in table) == GENERATION_PARAMETERS
    assert all(parameter.doc and "Range:" not in parameter.doc for parameter in table)


def test_bounds_and_units_are_read_from_the_comments(descriptors: Path) -> None:
    table = {parameter.name: parameter for parameter in read_table(descriptors)}
    assert str(table["top_p"].range) == "(0, 1]"
    assert table["max_tokens"].unit == "tokens"
    assert table["max_tokens"].range == Bounds(1, 10_000_000)
    assert table["seed"].range == Bounds(-(2**63), 2**63 - 1)
    assert (table["stop"].kind, table["stop"].items, table["stop"].length) == ("strings", Bounds(0, 16), Bounds(1, 256))
    assert table["logit_bias"].kind == "number_by_token"
    assert table["logit_bias"].keys == Bounds(0, 2**31 - 1)
    assert (table["reasoning_effort"].kind, table["reasoning_effort"].enum) == ("enum", "ReasoningEffort")


@pytest.mark.parametrize("tag", ["Range: 0 to 2.", "Range: [0; 2].", "Items: up to 3."])
def test_bounds_that_cannot_be_read_are_refused_with_the_line(tag: str, descriptors: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"temperature: cannot read .*a bound is written like"):
        read_table(changed(descriptors, tmp_path, f" Sampling temperature.\n {tag}\n"))


def test_a_type_that_no_generator_knows_is_refused(descriptors: Path, tmp_path: Path) -> None:
    path = changed(descriptors, tmp_path, " A flag.\n", type=FieldDescriptorProto.TYPE_BOOL)
    with pytest.raises(SystemExit, match="temperature: no generator knows"):
        read_table(path)


def test_the_checks_of_the_library_are_those_of_the_table(descriptors: Path) -> None:
    assert {p.name: p.items.maximum for p in read_table(descriptors) if p.items} == MOST_ITEMS
    for parameter in read_table(descriptors):
        field = GenerationParameters.model_fields[parameter.name]
        assert field.description == parameter.doc
        if parameter.kind in ("double", "int32", "int64") and parameter.range is not None:
            for bound, is_excluded in (
                (parameter.range.minimum, parameter.range.excludes_minimum),
                (parameter.range.maximum, parameter.range.excludes_maximum),
            ):
                value = float(bound or 0) if parameter.kind == "double" else bound
                assert is_valid(parameter.name, value) is not is_excluded, parameter.name


def is_valid(name: str, value: object) -> bool:
    try:
        GenerationParameters.model_validate({name: value})
    except ValueError:
        return False
    return True


def test_a_new_parameter_is_checked_by_the_library(tmp_path: Path) -> None:
    module = ModuleType("planted")
    exec(compile(library.emit([PLANTED])[library.FILE], "planted.py", "exec"), module.__dict__)
    module.ParameterFields.model_rebuild(_types_namespace=module.__dict__)
    assert module.ParameterFields(typical_p=0.5).typical_p == 0.5
    with pytest.raises(ValueError, match="greater than 0"):
        module.ParameterFields(typical_p=0)
    assert list(module.ParameterOptions.__annotations__) == ["typical_p"]


def test_a_new_parameter_is_in_the_documentation_and_the_rest_of_the_page_stays() -> None:
    page = (ROOT / documentation.PAGE).read_text("utf-8")
    text = documentation.emit([PLANTED], ROOT)[documentation.PAGE]
    assert "| `typical_p` | above 0 and at most 1 | Locally typical sampling; 1 is off. |" in text
    assert text.partition("<!--")[0] == page.partition("<!--")[0]
    assert text.rpartition("-->")[2] == page.rpartition("-->")[2]
    assert "`top_p`" not in text.partition(documentation.MARKS[0])[2].partition(documentation.MARKS[1])[0]


@pytest.mark.parametrize("marks", [0, 2])
def test_a_page_without_one_place_for_the_table_is_refused(marks: int, tmp_path: Path) -> None:
    page = tmp_path / documentation.PAGE
    page.parent.mkdir()
    page.write_text("\n".join([documentation.MARKS[0], "", documentation.MARKS[1], ""]) * marks, "utf-8")
    with pytest.raises(SystemExit, match="must be one place"):
        documentation.emit([PLANTED], tmp_path)


def test_limits_read_well() -> None:
    assert documentation.limits(PLANTED) == "above 0 and at most 1"
    effort = dataclasses.replace(PLANTED, kind="enum", enum="ReasoningEffort", range=None)
    assert documentation.limits(effort) == "`none`, `minimal`, `low`, `medium`, `high`, `xhigh`"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(-0.5, 2.0), "from -0.5 to 2"),
        (Bounds(0, 1024), "from 0 to 1,024"),
        (Bounds(0, 1, excludes_minimum=True), "above 0 and at most 1"),
        (Bounds(0, 1, excludes_maximum=True), "at least 0 and below 1"),
        (Bounds(1, None), "at least 1"),
        (Bounds(0, 2**31 - 1), "at least 0"),
        (Bounds(-(2**63), 2**63 - 1), ""),
    ],
)
def test_an_interval_is_given_in_words(bounds: Bounds, words: str) -> None:
    assert bounds.in_words() == words


@pytest.mark.parametrize(
    ("bounds", "words"), [(Bounds(0, 16), "at most 16"), (Bounds(1, 16), "from 1 to 16"), (Bounds(0, None), "")]
)
def test_that_a_count_is_at_least_zero_is_left_unsaid(bounds: Bounds, words: str) -> None:
    assert bounds.in_words(is_count=True) == words


def test_a_range_that_the_type_alone_bounds_is_named_by_the_type() -> None:
    seed = dataclasses.replace(PLANTED, kind="int64", range=Bounds(-(2**63), 2**63 - 1))
    assert seed.range_in_words() == "any 64-bit integer"
    assert dataclasses.replace(seed, range=None).range_in_words() == ""
