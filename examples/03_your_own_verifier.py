r"""Your own verifier: a function that scores messages, and what happens when it breaks.

    python examples/03_your_own_verifier.py      # one second

You learn: the form of a verifier (questions, messages -> scores in [0, 1]), how to mix it with the
answer key, that agents will learn whatever fools it, and that a failure never becomes a zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from maporl_env import debate_v0
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, Composite

QUESTION = Question("bill", "3 pens at 6 and 2 hats at 8: how much?", answer="34")
MESSAGES = {
    "right, with its working": r"3 * 6 = 18, 2 * 8 = 16, 18 + 16 = 34: \boxed{34}",
    "right, no working": r"\boxed{34}",
    "wrong, a slip": r"3 * 6 = 18, 2 * 8 = 14, 18 + 14 = 32: \boxed{32}",
    "wrong, but every line is true": r"1 + 1 = 2, 2 + 2 = 4, 1 * 9 = 9: \boxed{9}",
}
STEP = re.compile(r"(\d+) ([*+]) (\d+) = (\d+)")


def working(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """Score a message by the share of its arithmetic that is true; 0 where it shows none."""
    return [share_of_true_steps(text) for text in responses]


def share_of_true_steps(text: str) -> float:
    steps = STEP.findall(text)
    true = [
        int(r) == (int(a) * int(b) if sign == "*" else int(a) + int(b)) for a, sign, b, r in steps
    ]
    return sum(true) / len(true) if true else 0.0


def flaky(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """A verifier with a bug: it cannot score a message without working."""
    return [share_of_true_steps(text) if STEP.search(text) else float("nan") for text in responses]


VERIFIERS = {
    "answer key": AnswerKey(),
    "working": working,
    "0.7 key + 0.3 working": Composite([(AnswerKey(), 0.7), (working, 0.3)]),
    "flaky": flaky,
}


def main() -> None:
    agents = {f"agent_{agent_index}": text for agent_index, text in enumerate(MESSAGES.values())}
    print(f"{QUESTION.prompt}\n")
    for agent, (label, text) in zip(agents, MESSAGES.items(), strict=True):
        print(f"{agent}, {label}:\n    {text}")

    print(f"\n{'rewarded by':22}" + "".join(f"{agent:>9}" for agent in agents))
    for name, verifier in VERIFIERS.items():
        env = debate_v0.parallel_env(
            task=[QUESTION], num_agents=len(agents), num_turns=1, verifier=verifier
        )
        env.reset(seed=0)
        _, rewards, _, _, infos = env.step(agents)
        cells = [
            f"{rewards[a]:.2f}" if infos[a]["verifier_score_ready"] else "no score" for a in agents
        ]
        print(f"{name:22}" + "".join(f"{cell:>9}" for cell in cells))
    print(f"\nfaults that the environment counted in the last line: {dict(env.faults)}")
    print("agent_1 is not punished for them: it has no score, and training leaves it out.")
    print("agent_3 fools `working`: agents learn what the verifier rewards. Read transcripts.")


if __name__ == "__main__":
    main()
