"""A training in which the loss of one rank is no number; run by `test_faults`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rank_cases import config_of, weights_of

from maporl_agents import distributed
from maporl_agents.algorithms import maporl
from maporl_agents.training import experiment


def main(folder: Path) -> None:
    """Train one step, and one that fails; print the sentence, and whether weights have changed."""
    config = config_of("maporl-lora")
    try:
        with distributed.together():
            _, learner = experiment.build(config)
            debates = experiment.make_game(config.game).debates(config.questions_per_step)
            questions = debates.game.questions
            experiment.loop.take_step(config, learner, debates, questions, 0)
            before, real, is_last = weights_of(learner), maporl.loss_of, distributed.rank() == 1

            def broken(*args: Any, **more: Any) -> Any:
                loss, told = real(*args, **more)
                return loss * float("nan") if is_last else loss, told

            maporl.loss_of = broken
            experiment.loop.take_step(config, learner, debates, questions, 1)
    except FloatingPointError as error:
        after = weights_of(learner)
        print(error, all(bool((before[name] == after[name]).all()) for name in before))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
