"""Which mistakes a learned verifier of `shopping` sees: its scores by what is wrong with an answer.

    .venv/bin/python benchmarks/verifier_mistakes.py ANSWERS VERIFIER [VERIFIER ...]

ANSWERS is a folder of `maporl verifier data`; prints a Markdown table for each verifier.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from maporl_agents.verifier.data import Example, load_examples
from maporl_agents.verifier.metrics import auc
from maporl_agents.verifier.model import LearnedVerifier
from maporl_env.tasks import shopping

WORKED = re.compile(
    r"(\d+) \* (\d+) = (\d+) , (\d+) \* (\d+) = (\d+) , \\boxed\{ (\d+) \}"
)  # quantity, price, product, twice, and the sum


def mistake(example: Example) -> str:
    """Return the first mistake of an answer, in the order of the table."""
    if example.right:
        return "right"
    steps = WORKED.fullmatch(example.response)
    if steps is None:
        return "not worked out as taught"
    n, p, np_, m, q, mq, total = map(int, steps.groups())
    words = example.question.prompt.split()
    if (n, m) != (int(words[2]), int(words[5])):
        return "a quantity misread"
    if (n * p, m * q, np_ + mq) != (np_, mq, total):
        return "an arithmetic mistake"
    right = (p == shopping.PRICES[words[3]]) + (q == shopping.PRICES[words[6]])
    return "one price wrong" if right == 1 else "both prices wrong"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("answers", type=Path)
    parser.add_argument("verifiers", type=Path, nargs="+")
    args = parser.parse_args()
    examples = load_examples(args.answers / "test.jsonl")
    kinds = np.array([mistake(example) for example in examples])
    for folder in args.verifiers:
        verifier = LearnedVerifier.load(folder)
        given = verifier.score([e.question for e in examples], [e.response for e in examples])
        scores = np.array([np.nan if score is None else score for score in given])
        print(f"\n| {folder.name} | answers | mean score | above 0.5 | AUC against right ones |")
        print("|---|---|---|---|---|")
        for kind in sorted(set(kinds), key=lambda kind: -scores[kinds == kind].mean()):
            own = scores[kinds == kind]
            both = (kinds == kind) | (kinds == "right")
            area = auc(scores[both], kinds[both] == "right")
            shown = "" if area is None else f"{area:.3f}"
            print(
                f"| {kind} | {len(own)} | {own.mean():.3f} | {(own > 0.5).mean():.3f} | {shown} |"
            )


if __name__ == "__main__":
    main()
