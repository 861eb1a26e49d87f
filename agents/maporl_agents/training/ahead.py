"""One step of lag: the debates of the next step are played while this one is learnt.

Step k is then learnt from debates that were played by the weights of before the last update; the
advantages of its tokens are weighted for that (`importance`). The first step of a run, and the
first after a resumption, is played by the weights that learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread

from maporl_agents.algorithms import scheme_for
from maporl_agents.config import RunConfig
from maporl_agents.models.team import Team
from maporl_agents.phases import phase
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.rollout import Playable
from maporl_agents.play.speak import Engine, Publishing
from maporl_agents.seeding import seed_of
from maporl_agents.types import Rollout
from maporl_env.types import Question

Play = Callable[[int, Engine], list[Rollout]]
"""Plays the debates of a step, counted from 0, by an engine."""


class Ahead:
    """Debates of the next step, played in a thread of their own.

    Args:
        engine: whose weights are pinned while debates are played.
        play: plays the debates of a step.
        steps: of the whole run.
    """

    def __init__(self, engine: Publishing, play: Play, steps: int) -> None:
        self._engine = engine
        self._play = play
        self._steps = steps
        self._next: tuple[int, Future[list[Rollout]]] | None = None

    def rollouts(self, step: int) -> list[Rollout]:
        """Return the debates of a step, and begin to play those of the next by the weights of now.

        Raises:
            RemoteError: as of the engine, of what was played in the meantime.
        """
        if self._next is None or self._next[0] != step:
            found = self._play(step, self._engine.pinned())
        else:
            with phase("play/wait"):
                found = self._next[1].result()
        self._engine.check()
        self._next = None
        if step + 1 < self._steps:
            self._next = step + 1, self._begin(step + 1)
        return found

    def settle(self) -> None:
        """Wait until nothing is played; what was played is kept."""
        if self._next is not None:
            self._next[1].exception()

    def _begin(self, step: int) -> Future[list[Rollout]]:
        """Play a step in a thread that does not keep the process alive."""
        speaking, future = self._engine.pinned(), Future[list[Rollout]]()

        def work() -> None:
            try:
                future.set_result(self._play(step, speaking))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=work, name="ahead", daemon=True).start()
        return future


def ahead_of(
    config: RunConfig, team: Team, game: Playable, questions: Sequence[Question]
) -> Ahead | None:
    """Return what plays the steps of a run ahead; None without a lag.

    Raises:
        ValueError: the scheme does not play debates by themselves.
    """
    if not config.sampling.lag:
        return None
    play = scheme_for(config).play
    if play is None or not isinstance(team.engine, Publishing):
        raise ValueError(
            "sampling.lag=1 plays the debates of the next step while this one is learnt; that "
            "needs servers, and a scheme whose Scheme.play plays debates by themselves"
        )

    def play_step(step: int, engine: Engine) -> list[Rollout]:
        asked, seed = asked_in_step(config, questions, step)
        return play(team, game, asked, config, seed=seed, engine=engine)

    return Ahead(team.engine, play_step, config.steps)


def asked_in_step(
    config: RunConfig, questions: Sequence[Question], step: int
) -> tuple[Sequence[Question], int]:
    """Return the questions of a step, counted from 0, and the seed of its random streams."""
    _, count = config.training_game()
    asked = questions_of_step(questions, step // config.steps_per_round, count, config.seed)
    return asked, seed_of(config.seed, "step", step)
