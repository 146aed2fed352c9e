from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    with task.connect(task.input["llm"], temperature=0) as llm:
        return [
            {"joined": "".join(llm.generate(prompt, stream=True)), "whole": llm.generate(prompt)}
            for prompt in task.input["prompts"]
        ]
