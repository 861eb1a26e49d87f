r"""A real language model learns to tell its colleague what it knows, and to use what it is told.

    pip install '.[gguf]'
    python examples/13_a_real_model_asks_its_colleague.py                 # 10 to 20 minutes
    python examples/13_a_real_model_asks_its_colleague.py --steps 2 --questions 4 --held-out 10

You learn: what a real model needs to learn by reward alone. SmolLM2-135M (93 MB, fetched once)
speaks for two agents by one adapter. Each is told one of two numbers; turn 1 is for telling, turn 2
for the sum. `maporl train --recipe smollm2-notes` does the same and keeps a run folder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from maporl_agents.config import TrainConfig
from maporl_agents.measure.evaluate import Evaluation, evaluate
from maporl_agents.models.sources.model_download import fetch
from maporl_agents.recipes import recipe
from maporl_agents.studies.controls import SwappedPeers
from maporl_agents.training import experiment
from maporl_agents.training.loop import take_step
from maporl_agents.training.make_game import make_game


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=16, help="rounds of play and update")
    parser.add_argument("--questions", type=int, default=16, help="debates per step")
    parser.add_argument("--held-out", type=int, default=50, help="questions of each measurement")
    args = parser.parse_args()

    fetch("smollm2-135m", print)  # into $MAPORL_CACHE, or ~/.cache/maporl
    config = recipe("smollm2-notes")
    assert isinstance(config, TrainConfig)
    config = replace(config, steps=args.steps, questions_per_step=args.questions, seed=args.seed)
    game = make_game(config.game)
    team, learner = experiment.build(config, game=game)
    held_out = game.questions("test")[: args.held_out]  # pairs of numbers never added in training

    debates = game.debates(len(held_out))
    debates.reset(held_out)
    print(f"\nwhat agent_0 reads before it speaks:\n{debates.prompts()[0].text}\n")

    def measured(when: str, *, swapped: bool = False) -> Evaluation:
        played = SwappedPeers(game.config, len(held_out)) if swapped else debates
        result = evaluate(team, played, held_out, config.sampling, seed=config.eval.seed)
        last = result.turns[-1]
        print(f"{when}: the vote of turn 2 is right in {last.vote:.3f} ± {last.vote_interval:.3f}")
        return result

    before = measured("before training")
    training = game.debates(config.questions_per_step)
    for step in range(config.steps):
        _, metrics = take_step(config, learner, training, game.training_questions(), step)
        print(f"step {step + 1}: right in turn 2 {metrics['score/turn_2']:.2f}", flush=True)
    after = measured("after training")
    measured("after, reading peers of other questions", swapped=True)  # so it is the reading

    for when, result in (("before", before), ("after", after)):
        debate = result.transcripts[0]
        print(f"\n{when}: {debate.question.prompt} (right: {debate.question.answer})")
        for message in debate.messages:
            told = debate.question.private_of(debate.agents.index(message.agent))
            note = f" (told: {told})" if message.turn == 0 else ""
            print(f"  turn {message.turn + 1} {message.agent}{note}: {message.text.strip()}")


if __name__ == "__main__":
    main()
