"""MAGRPO and MALT with one setting changed at a time, on the built-in task of each.

    python benchmarks/schemes.py malt [--arms malt "soft labels" ...] [--seeds 0 1 2]
    python benchmarks/schemes.py malt --arms malt --steps 12 --questions 58 --thresholds .2 .3 .4 .5
    python benchmarks/schemes.py magrpo [--arms magrpo aligned iac] [--learning-rate 1e-3]

Prints one line per arm and seed. What is compared at length, with controls and intervals, is in
`maporl compare`; this is for looking at a setting.

malt    Accuracy of one pass over three roles (or of one answer of a single agent), and of the vote
        of nine generations. Trained arms generate 39 times per question in training.
magrpo  Two clerks write the same bill unseen by each other and are rewarded where their lines
        agree; the answer key gives no reward. The share of right bills, and the reward, before and
        after. The arms of shopping are rewarded by the answer key, in two turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maporl_agents.config import IACConfig, MAGRPOConfig, MALTConfig, RunConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.measure.vote_of_passes import vote_of_passes
from maporl_agents.models.team import Team
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.studies.arms import settings_of
from maporl_agents.studies.schemes import joint_shopping, single, star
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions

Measured = dict[str, float]


@dataclass(frozen=True)
class Arm:
    """One way to train, or not to."""

    config: RunConfig
    trained: bool = True


# --- MALT ---------------------------------------------------------------------------

MALT = MALTConfig()
ALONE = single(MALT)
ALONE = replace(ALONE, eval=replace(ALONE.eval, passes=9))
"""One agent that answers alone, and whose nine answers vote."""


def malt(**settings: Any) -> Arm:
    """Return a run of MALT with other settings of the algorithm."""
    return Arm(replace(MALT, malt=replace(MALT.malt, **settings)))


def trains_only(*agents: int) -> Arm:
    """Return a run of MALT in which the other roles stay as they are."""
    return Arm(replace(MALT, team=replace(MALT.team, train_agents=agents)))


MALT_ARMS = {
    "malt": Arm(MALT),
    "untrained pipeline": Arm(MALT, trained=False),
    "untrained single": Arm(ALONE, trained=False),
    "single": Arm(ALONE),
    "star": Arm(star(MALT)),
    "sft": malt(prefer=()),
    "generator dpo": malt(prefer=MALT.malt.roles),
    "soft labels": malt(labels="soft"),
    "generator untrained": trains_only(1, 2),
    "verifier untrained": trains_only(0, 2),
    "refiner untrained": trains_only(0, 1),
}


def passes_and_vote(config: RunConfig, team: Team) -> Measured:
    """Return the accuracy of single passes and of their vote, on the held-out questions."""
    assert isinstance(config, MALTConfig)
    result = vote_of_passes(
        team,
        debates_of(config.game, experiment.EVAL_BATCH),
        experiment.held_out(config),
        config.sampling,
        passes=config.eval.passes,
        seed=config.eval.seed,
    )
    [turn] = result.turns
    return {"pass": turn.mean_accuracy, "vote": turn.vote}


# --- MAGRPO -------------------------------------------------------------------------

MAGRPO = MAGRPOConfig()
SHOPPING = joint_shopping(settings_of("shopping"))
"""As in `maporl compare schemes`."""


def magrpo(**settings: Any) -> Arm:
    """Return a run of MAGRPO with other settings of the algorithm."""
    return Arm(replace(MAGRPO, magrpo=replace(MAGRPO.magrpo, **settings)))


MAGRPO_ARMS = {
    "magrpo": Arm(MAGRPO),
    "aligned": magrpo(joining="aligned"),
    "leave one out": magrpo(comparison="leave_one_out"),
    "standardised": magrpo(comparison="standardised"),
    "raw": magrpo(comparison="raw"),
    "iac": Arm(IACConfig()),
    "shopping": Arm(SHOPPING),
    "shopping, parts unseen": Arm(replace(SHOPPING, game=replace(SHOPPING.game, show_parts=False))),
}


def right_and_paid(config: RunConfig, team: Team) -> Measured:
    """Return accuracy by the key and the mean joint score, both of the last turn."""
    held = experiment.held_out(config)
    debates = debates_of(config.game, min(experiment.EVAL_BATCH, len(held)))
    last = evaluate(team, debates, held, config.sampling, seed=config.eval.seed).turns[-1]
    return {"right": last.mean_accuracy, "paid": last.score or 0.0}


# --- Both ---------------------------------------------------------------------------

Measure = Callable[[RunConfig, Team], Measured]
SCHEMES: Mapping[str, tuple[Mapping[str, Arm], Measure]] = {
    "malt": (MALT_ARMS, passes_and_vote),
    "magrpo": (MAGRPO_ARMS, right_and_paid),
}


def run(arm: Arm, measure: Measure, folder: Path) -> Measured:
    """Return the measurements before and after an arm's training, and its cost."""
    begin = time.process_time()
    team, learner = experiment.build(arm.config)
    found = {f"{name}, before": value for name, value in measure(arm.config, team).items()}
    if arm.trained:
        with RunLog.create(folder, arm.config) as log:
            experiment.train(arm.config, learner, training_questions(arm.config.game), log)
        found |= {f"{name}, after": value for name, value in measure(arm.config, team).items()}
        rows = read_metrics(folder)
        for spent in ("answers", "tokens"):
            found[spent] = sum(row.get(spent, 0) for row in rows)
    return found | {"CPU-seconds": time.process_time() - begin}


def with_flags(config: RunConfig, given: argparse.Namespace) -> RunConfig:
    """Return settings with what the command line changes of them."""
    steps = given.steps or config.steps
    asked = given.questions or config.questions_per_step
    config = replace(config, steps=steps, questions_per_step=asked)
    if isinstance(config, MAGRPOConfig) and given.learning_rate:
        rate = given.learning_rate
        config = replace(config, magrpo=replace(config.magrpo, learning_rate=rate))
    if isinstance(config, MALTConfig) and given.thresholds:
        thresholds = tuple(given.thresholds)
        config = replace(config, malt=replace(config.malt, thresholds=thresholds))
    return config


def main() -> None:
    """Run arms by seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scheme", choices=list(SCHEMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="default: all of the scheme")
    parser.add_argument("--steps", type=int, help="default: as the arm has it; so for the others")
    parser.add_argument("--questions", type=int, help="per step; of MALT, trees per round")
    parser.add_argument("--learning-rate", type=float, help="of MAGRPO")
    parser.add_argument("--thresholds", type=float, nargs="+", help="of MALT, by round")
    given = parser.parse_args()
    arms, measure = SCHEMES[given.scheme]
    for name in given.arms or ():
        if name not in arms:
            parser.error(f"no arm {name!r}: choose of {', '.join(map(repr, arms))}")
    for seed in given.seeds:
        for name in given.arms or arms:
            config = with_flags(replace(arms[name].config, seed=seed), given)
            with tempfile.TemporaryDirectory() as folder:
                result = run(replace(arms[name], config=config), measure, Path(folder) / "run")
            shown = {key: round(value, 3) for key, value in result.items()}
            print(json.dumps({"arm": name, "seed": seed, **shown}), flush=True)


if __name__ == "__main__":
    main()
