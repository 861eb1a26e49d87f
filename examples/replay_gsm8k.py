"""Four real language models debate grade-school problems, by what they wrote years ago.

    python examples/replay_gsm8k.py path/to/example_model_solutions.jsonl

The file is the one that comes with GSM8K (github.com/openai/grade-school-math): for each test
problem the solutions of four models. They take part as four agents; nothing is generated. Shows one
debate, then what the team would have gained by voting.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from maporl_env import replay
from maporl_env.answers import extract_answer, read_gold
from maporl_env.rendering import plain_text
from maporl_env.replay import Recorded, Recording
from maporl_env.types import Question, Transcript
from maporl_env.voting import expected_accuracy


def gold_of(question: Question) -> object:
    return read_gold(question.answer, question.kind)


def show_one(recording: Recording) -> None:
    """Play one debate turn by turn; in the second turn everybody holds on to the answer."""
    batch, recorded = replay.start([recording], num_turns=2), Recorded([recording])
    print(plain_text.heading(recording.question))
    while prompts := batch.prompts():
        batch.step(recorded(prompts))
    print(plain_text.lines(batch.transcripts[0].messages))
    for speaker, rewards in zip(recording.speakers, batch.turn_rewards()[0].T, strict=True):
        print(f"{speaker:20} gets the rewards {np.round(rewards, 3)} for its two messages")


def vote_accuracy(transcripts: Sequence[Transcript]) -> float:
    """Return the accuracy of the most common answer; a tie counts by its share."""
    rights = []
    for transcript in transcripts:
        question = transcript.question
        answers = [extract_answer(m.text, question.kind) for m in transcript.messages]
        rights.append(expected_accuracy(answers, gold_of(question)))
    return float(np.mean(rights))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="example_model_solutions.jsonl")
    parser.add_argument("--index", type=int, default=10, help="which problem to show")
    args = parser.parse_args()

    try:
        recordings = replay.load(args.file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    show_one(recordings[args.index])

    batch = replay.play(recordings)
    scores = np.array([[m.score for m in t.messages] for t in batch.transcripts])
    marks = np.array([recording.marks for recording in recordings])
    print(
        f"\n{len(recordings)} problems; the key agrees with {(scores == marks).mean():.2%} of "
        f"the {marks.size} published marks"
    )
    for speaker, accuracy in zip(recordings[0].speakers, scores.mean(axis=0), strict=True):
        print(f"{speaker:20} {accuracy:.3f}")
    print(f"{'vote of all four':20} {vote_accuracy(batch.transcripts):.3f}")
    print(f"{'at least one right':20} {scores.max(axis=1).mean():.3f}")


if __name__ == "__main__":
    main()
