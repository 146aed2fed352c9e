import json

from tests.interop.runners.python.main import Task

KEPT = ("parameters", "request_id", "labels", "has_timeout")


def run(task: Task) -> object:
    inputs = task.input
    values = inputs["all"] | {"logit_bias": {int(token): bias for token, bias in inputs["all"]["logit_bias"].items()}}
    with task.connect("mirror") as llm, task.connect("mirror", temperature=0.5, top_k=3) as configured:
        none = json.loads(llm.generate("hi"))
        every = json.loads(
            llm.generate("hi", **values, request_id=inputs["request_id"], labels=inputs["labels"], timeout=60)
        )
        client = json.loads(configured.generate("hi"))["parameters"]
        call = json.loads(configured.generate("hi", temperature=0.0))["parameters"]
    with task.connect("local", temperature=0, max_tokens=2) as local:
        dropping = local.complete("hi", reasoning_effort="high", parameters_policy="drop_unsupported")
        logprobs = local.complete("hi", top_logprobs=2).logprobs
    return {
        "none": {name: none[name] for name in KEPT},
        "all": {name: every[name] for name in KEPT},
        "client": client,
        "call": call,
        "logprobs": {
            "tokens": [one.token for one in logprobs],
            "alternatives": [len(one.top) for one in logprobs],
        },
        "dropped": list(dropping.dropped_parameters),
    }
