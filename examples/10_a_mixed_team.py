r"""A mixed team: two models of different family, size and vocabulary debate and learn together.

    python examples/10_a_mixed_team.py                       # half a minute
    python examples/10_a_mixed_team.py --steps 40 --questions 64

You learn: that agents share nothing but text. Every model has its own tokenizer, weights, optimiser
state and critic; what one writes reaches the other as words. Other models are named the same way:
`maporl train --team.model Qwen/Qwen3-0.6B ./my-llama --team.tuning lora`.
"""

from __future__ import annotations

import argparse

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import GameConfig, TeamConfig, TrainConfig
from maporl_agents.play.questions import questions_of_step
from maporl_agents.seeding import seed_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.update.optimiser import PPOLearner

WORDS = "Mia has 47 coins"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2, help="rounds of play and update")
    parser.add_argument("--questions", type=int, default=16, help="debates per step")
    args = parser.parse_args()

    config = TrainConfig(
        steps=args.steps,
        questions_per_step=args.questions,
        # A guessing task in which agents read the verdicts of a judge who is sometimes wrong.
        game=GameConfig(task="sharing", reward_feedback=True, feedback_verifier="noisy_key"),
        team=TeamConfig(model=("tiny-sharing", "tiny-sharing-qwen2"), train_turns=">=2"),
    )
    team, learner = experiment.build(config)
    assert isinstance(learner, PPOLearner)  # that of PPO; other schemes have others
    for agent in range(2):
        base = team.base_of(team.policy(agent, turn=2))
        size = sum(parameter.numel() for parameter in base.model.parameters())
        kind = type(base.model).__name__
        print(f"agent_{agent}: {kind}, {size:,} parameters, vocabulary of {base.vocab_size}")
        print(f"  reads {WORDS!r} as the ids {base.chat.encode(WORDS)}")

    debates, questions = debates_of(config.game, args.questions), training_questions(config.game)
    for step in range(config.steps):
        asked = questions_of_step(questions, step, args.questions, config.seed)
        rollouts, metrics = train_step(
            learner, debates, asked, config, seed=seed_of(config.seed, "step", step)
        )
        scores = " ".join(f"{metrics[f'score/turn_{t}']:.3f}" for t in (1, 2, 3))
        norms = [f"{value:.3f}" for name, value in metrics.items() if "grad_norm" in name]
        print(f"step {step + 1}: score by turn {scores}   gradient norm of each {' '.join(norms)}")

    transcript = rollouts[-1].transcript
    print(f"\n{transcript.question.prompt}   (key: {transcript.question.answer})")
    for message in transcript.messages:
        verdict = {0.0: "wrong", 0.5: "unsure", 1.0: "right"}[message.feedback or 0.0]
        print(f"  turn {message.turn + 1} {message.agent}: {message.text}   [judge: {verdict}]")


if __name__ == "__main__":
    main()
