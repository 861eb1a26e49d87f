r"""Train the tiny team: the loop of MAPoRL, written out.

    python examples/07_train_the_tiny_team.py                                # half a minute
    python examples/07_train_the_tiny_team.py --steps 50 --questions 64 --held-out 500

You learn: the parts of a training run and what they hand to each other. Two models of 0.14 M
parameters each know half of a shop's prices; alone neither can add up most bills. The default run
is too short to learn much; the second command takes about five minutes on two cores and ends near
nine right bills in ten. `maporl train` does the same and keeps a run folder besides.
"""

from __future__ import annotations

import argparse

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import EvalConfig, TrainConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.play.questions import questions_of_step
from maporl_agents.seeding import seed_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.update.optimiser import PPOLearner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="rounds of play and update")
    parser.add_argument("--questions", type=int, default=32, help="debates per step")
    parser.add_argument("--held-out", type=int, default=100, help="questions of the measurement")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # Settings: everything that is not named stays at what `maporl train --help` shows.
    config = TrainConfig(
        seed=args.seed,
        steps=args.steps,
        questions_per_step=args.questions,
        eval=EvalConfig(questions=args.held_out),
    )

    # The team (models, adapters, critics), its optimiser, the environment, the questions.
    team, learner = experiment.build(config)
    assert isinstance(learner, PPOLearner)  # that of PPO; other schemes have others
    debates = debates_of(config.game, config.questions_per_step)
    questions = training_questions(config.game)
    held_out = experiment.held_out(config)  # of pairs of items that training never shows

    def measure(when: str) -> None:
        result = evaluate(
            team,
            debates_of(config.game, min(100, len(held_out))),
            held_out,
            config.sampling,
            seed=config.eval.seed,
        )
        votes = " ".join(f"{turn.vote:.3f}" for turn in result.turns)
        margin = result.turns[-1].vote_interval
        print(f"{when}: the vote of turns 1, 2, 3 is right in {votes}  (last one ± {margin:.3f})")

    measure("before")
    for step in range(config.steps):
        asked = questions_of_step(questions, step, config.questions_per_step, config.seed)
        rollouts, metrics = train_step(
            learner, debates, asked, config, seed=seed_of(config.seed, "step", step)
        )
        scores = " ".join(f"{metrics[f'score/turn_{t}']:.3f}" for t in (1, 2, 3))
        print(f"step {step + 1}: score by turn {scores}   KL {metrics['kl']:.4f}")
    measure("after")

    print("\nthe last debate of training:")
    for message in rollouts[-1].transcript.messages:
        print(f"  turn {message.turn + 1} {message.agent}: {message.text}   [{message.score:.0f}]")


if __name__ == "__main__":
    main()
