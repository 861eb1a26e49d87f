r"""Your own task: questions with an answer key, as a list in Python or as a file.

    python examples/02_your_own_task.py          # one second

You learn: what a `Question` is, how splits and words belong to a `Task`, that a file does as well,
and that an answer key that no answer could match is refused when it is loaded, not after training.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maporl_env.bridges.speakers import play
from maporl_env.prompts import Template
from maporl_env.tasks import Task, load_task
from maporl_env.types import Question


def ask(start: int, hours: int) -> Question:
    """`kind` says how answers are read: "number" here; "text", "nli" or "code" are others."""
    prompt = f"It is {start} o'clock. What does it show {hours} h later?"
    return Question(f"clock/{start}+{hours}", prompt, str((start + hours - 1) % 12 + 1), "number")


def split(starts: range) -> list[Question]:
    return [ask(start, hours) for start in starts for hours in range(1, 12)]


TASK = Task(
    name="clock",
    splits={"train": split(range(1, 9)), "test": split(range(9, 13))},  # no question in both
    template=Template(instruction="Answer with an hour from 1 to 12, in \\boxed{{}}."),
)


def hasty(prompts: Sequence[str]) -> list[str]:
    """An agent that adds the hours and forgets that a clock goes round."""
    numbers = [[int(word) for word in prompt.split() if word.isdigit()] for prompt in prompts]
    return [rf"{n[0]} + {n[1]} = \boxed{{{n[0] + n[1]}}}" for n in numbers]


def careful(prompts: Sequence[str]) -> list[str]:
    numbers = [[int(word) for word in prompt.split() if word.isdigit()] for prompt in prompts]
    return [rf"\boxed{{{(n[0] + n[1] - 1) % 12 + 1}}}" for n in numbers]


def main() -> None:
    questions = TASK.split("test")
    played = play([hasty, careful], questions, task=TASK, num_turns=1)
    print(played.transcripts[6].question.prompt)
    for message in played.transcripts[6].messages:
        print(f"  {message.agent}: {message.text}    score {message.score:.0f}")
    for agent in played.agents:
        right = sum(debate.message(0, agent).score == 1 for debate in played.transcripts)
        print(f"{agent} is right in {right} of {len(questions)} test questions")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clock.jsonl")
        rows = [q.to_dict() | {"split": name} for name in TASK.splits for q in TASK.split(name)]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        loaded = load_task(str(file))
        same = all(list(loaded.split(name)) == TASK.split(name) for name in TASK.splits)
        sizes = ", ".join(f"{len(loaded.split(name))} {name}" for name in sorted(loaded.splits))
        print(f"\n{file.name} holds {sizes} questions, the same as the list: {same}")
        print(f"train on it with: maporl train --game.task {file.name} --team.model YOUR-MODEL")

        rows[3]["answer"] = "half past nine"
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        try:
            load_task(str(file))
        except ValueError as error:
            print(f"\na key that is no number is refused:\n  {error}")


if __name__ == "__main__":
    main()
