"""LessonL on slow functions, by scripted agents: what the bank of lessons adds.

    .venv/bin/python benchmarks/lessons_scripted.py      # a few minutes; needs the sandbox

No language model: three agents know eleven remedies by name, of which one makes a given function
fast (its rewrite runs in the sandbox and is measured) and the others leave it as it is. In each of
four attempts an agent takes the remedy of the best lesson that it reads, if that was a speed-up,
else one that no lesson calls useless, at random. Controls, at as many messages: nobody reads a
lesson (`shown=0`), and everybody reads the lessons of another question. Mean over questions and
repetitions; median and range over seeds.
"""

from __future__ import annotations

import argparse
import platform
import random
import re
from collections.abc import Callable

from compared.others_lessons import OthersLessons
from compared.over_seeds import spread

from maporl_env.answers import extract_program
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.tasks.optimise import questions
from maporl_env.tasks.slow_functions import FAMILIES, Family
from maporl_env.types import Question
from maporl_env.verifiers.speedups import Speedup, Speedups

SEEDS = (0, 1, 2)
TURNS = 7
SCALE = 100.0
LISTED = re.compile(r"\((the attempt [^)]*)\) ```try (\w+)```")
ARMS: dict[str, tuple[Callable[..., BatchedDebate], int]] = {
    "lessons of this question": (BatchedDebate, 4),
    "no lessons": (BatchedDebate, 0),
    "lessons of another question": (OthersLessons, 4),
}


def attempt(question: Question, family: Family, remedy: str) -> str:
    """Return the program of a remedy in a message: the fast one for the right remedy."""
    original = str(extract_program(question.prompt))
    program = original
    if remedy == family.name:
        program = family.fast
        for constant in family.constants:
            if family.slow.replace("CONSTANT", str(constant)).strip() == original.strip():
                program = family.fast.replace("CONSTANT", str(constant))
    return f"I try {remedy}.\n```python\n{program}\n```"


def choose(text: str, rng: random.Random) -> str:
    """Return the remedy that an agent takes after what it reads."""
    told = {remedy: effect for effect, remedy in LISTED.findall(text)}
    speeds = {
        remedy: float(found[1])
        for remedy, effect in told.items()
        if (found := re.search(r"was ([\d.]+) times", effect))
    }
    good = [remedy for remedy, speed in speeds.items() if speed >= 1.1]
    if good:
        return max(good, key=speeds.__getitem__)
    left = [family.name for family in FAMILIES if family.name not in told]
    return rng.choice(left)


def play(
    way: Callable[..., BatchedDebate],
    shown: int,
    asked: list[Question],
    known: dict[tuple[str, str], float],
    seed: int,
) -> tuple[float, float]:
    """Return the means of the final speed-up and of that of the last attempts."""

    def score(questions: list[Question], texts: list[str]) -> list[float]:
        pairs = zip(questions, texts, strict=True)
        return [known[q.id, str(extract_program(text))] / SCALE for q, text in pairs]

    options = {"cut": 1.1, "scale": SCALE, "shown": shown}
    config = DebateConfig(
        asked,
        protocol="lessons",
        num_agents=3,
        num_turns=TURNS,
        protocol_options=options,
        verifier=score,
    )
    batch = way(config, len(asked))
    batch.reset(asked)
    rng = random.Random(seed)
    tried: dict[tuple[int, int], str] = {}

    def say(prompt: Prompt) -> str:
        place = prompt.debate, prompt.agent_index
        if prompt.turn % 2:
            return f"try {tried[place]}"
        tried[place] = choose(prompt.text, rng)
        family = FAMILIES[prompt.debate % len(FAMILIES)]
        return attempt(asked[prompt.debate], family, tried[place])

    while prompts := batch.prompts():
        batch.step([say(prompt) for prompt in prompts])
    scores = [[(m.turn, SCALE * (m.score or 0)) for m in t.messages] for t in batch.transcripts]
    best = [max(value for _, value in one) for one in scores]
    last = [value for one in scores for turn, value in one if turn == TURNS - 1]
    return sum(best) / len(best), sum(last) / len(last)


def measured(asked: list[Question]) -> tuple[dict[tuple[str, str], float], list[Speedup]]:
    """Return the speed-up of both programs of each question, and those of the fast ones."""
    verifier, known, fast = Speedups(), {}, []
    for place, question in enumerate(asked):
        family = FAMILIES[place % len(FAMILIES)]
        for remedy in (family.name, ""):
            text = attempt(question, family, remedy)
            found = verifier.measure(question, text)
            assert found is not None, f"{question.id}: the sandbox gave no answer"
            known[question.id, str(extract_program(text))] = found.value
            if remedy:
                fast.append(found)
                print(f"{family.name}: {found}", flush=True)
    return known, fast


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--questions", type=int, default=11, help="of the test split")
    parser.add_argument("--repetitions", type=int, default=20, help="of each question and seed")
    args = parser.parse_args()
    asked = questions("test", args.questions)
    known, fast = measured(asked)
    print(f"\nWith the right remedy: {spread([one.value for one in fast])} times as fast.\n")
    print("| agents read | final speed-up | speed-up of the last attempts |\n|---|---|---|")
    for name, (way, shown) in ARMS.items():
        each = []
        for seed in SEEDS:
            runs = [
                play(way, shown, asked, known, seed * 1000 + n) for n in range(args.repetitions)
            ]
            each.append([sum(column) / len(runs) for column in zip(*runs, strict=True)])
        print(f"| {name} | {' | '.join(spread(column) for column in zip(*each, strict=True))} |")
    print(
        f"\n{len(asked)} questions x {args.repetitions} repetitions, seeds {SEEDS}; "
        f"{platform.machine()}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
