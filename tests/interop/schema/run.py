import json

from abstractllm_client import GrammarFormat, JsonObjectFormat, JsonSchemaFormat, RegexFormat
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect("mirror") as mirror, task.connect("local", temperature=0, max_tokens=50) as local:

        def arrived(response_format: object) -> object:
            return json.loads(mirror.generate(inputs["prompt"], response_format=response_format))["response_format"]

        schema = JsonSchemaFormat(json.dumps(inputs["schema"]), name=inputs["name"])
        return {
            "json_object": arrived(JsonObjectFormat()),
            "json_schema": arrived(JsonSchemaFormat("{}", name=inputs["name"], strict=True)),
            "regex": arrived(RegexFormat(inputs["regex"])),
            "grammar": arrived(GrammarFormat(inputs["grammar"])),
            "real": {
                "object": json.loads(local.generate(inputs["prompt"], response_format=schema)),
                "digits": local.generate(inputs["prompt"], response_format=RegexFormat(inputs["regex"])),
                "word": local.generate(inputs["prompt"], response_format=GrammarFormat(inputs["grammar"])),
            },
        }
