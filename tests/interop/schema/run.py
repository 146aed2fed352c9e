import json

from abstractllm_client import GrammarFormat, JsonObjectFormat, JsonSchemaFormat, RegexFormat
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    with task.connect("mirror") as mirror, task.connect("local", temperature=0, max_tokens=50) as local:

        def arrived(response_format: object) -> object:
            return json.loads(mirror.generate(asked["prompt"], response_format=response_format))["response_format"]

        schema = JsonSchemaFormat(json.dumps(asked["schema"]), name=asked["name"])
        return {
            "json_object": arrived(JsonObjectFormat()),
            "json_schema": arrived(JsonSchemaFormat("{}", name=asked["name"], strict=True)),
            "regex": arrived(RegexFormat(asked["regex"])),
            "grammar": arrived(GrammarFormat(asked["grammar"])),
            "real": {
                "object": json.loads(local.generate(asked["prompt"], response_format=schema)),
                "digits": local.generate(asked["prompt"], response_format=RegexFormat(asked["regex"])),
                "word": local.generate(asked["prompt"], response_format=GrammarFormat(asked["grammar"])),
            },
        }
