from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    bias = {int(token): value for token, value in asked["logit_bias"].items()}
    left = []
    with task.connect(asked["llm"], temperature=0, max_tokens=asked["max_tokens"], logit_bias=bias) as llm:
        for _ in range(asked["times"]):
            pieces = 0
            for _ in llm.generate(asked["prompt"], stream=True):
                pieces += 1
                if pieces == asked["pieces"]:
                    break
            left.append({"pieces": pieces, **task.ask("steps_until_idle")})
    return {"left": left}
