from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    bias = {int(token): value for token, value in inputs["logit_bias"].items()}
    left = []
    with task.connect(inputs["llm"], temperature=0, max_tokens=inputs["max_tokens"], logit_bias=bias) as llm:
        for _ in range(inputs["times"]):
            pieces = 0
            for _ in llm.generate(inputs["prompt"], stream=True):
                pieces += 1
                if pieces == inputs["pieces"]:
                    break
            left.append({"pieces": pieces, **task.ask("steps_until_idle")})
    return {"left": left}
