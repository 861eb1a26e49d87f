"""A real language model learns to tell and to ask: the recipe `smollm2-notes`, seeds and controls.

    maporl fetch smollm2-135m
    python benchmarks/real_notes.py run [--seeds 0 1 2 3 4] [--questions 200]
    python benchmarks/real_notes.py show [--docs PAGE.md] [--picture docs/images/real-notes.png]

`run` trains one team per seed by the recipe as it is and measures it on the held-out questions of
the split "test". What is done is kept, in the runs' folders and as one small JSON file per
measurement, so the command may be stopped and given again. `show` prints the table, says which bars
are met, writes both into a page and draws the picture, from these files alone.

Measurements, in both turns; "greedy" takes the most probable token, all others are sampled:

before, after   the untrained team, the same for every seed; the trained team
before greedy, after greedy
after N steps   the team on its way, after 4, 8 and 12 steps: a run that decays ends below its best
peers shuffled  the trained team, where each agent reads the peer's messages of another question
alone           each member debates with nobody: it tells its note, reads nothing, and answers
alone on all pairs   the same over all pairs of numbers, where chance is 1/9 for any rule
two alone       of these answers of both members, as many tokens as a debate, the better one by key
vote alone      the vote of both
guesses         of the other's number by an agent that reads nobody: no model is asked
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from notes.guesses import all_pairs, guesses
from notes.table import ON_THE_WAY, Result, show

from maporl_agents.config import TrainConfig
from maporl_agents.measure.debate_stats import turn_stats
from maporl_agents.measure.evaluate import Evaluation, evaluate
from maporl_agents.models.team import Team
from maporl_agents.recipes import recipe
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.studies.controls import Cast, SwappedPeers
from maporl_agents.training import experiment
from maporl_agents.training.make_game import LoadedGame, make_game
from maporl_agents.training.resume import go_back_to_checkpoint
from maporl_env.tasks import Task
from maporl_env.types import Question, Transcript

RESULTS = Path(__file__).resolve().parents[1] / "docs/explanation/results/real-notes"


class Lab:
    """One seed of the recipe: its game and the questions it is measured on.

    Args:
        seed: of the run.
        questions: number of held-out questions.
        runs: folder of all runs.
    """

    def __init__(self, seed: int, questions: int, runs: Path) -> None:
        config = recipe("smollm2-notes")
        assert isinstance(config, TrainConfig)
        asked = replace(config.eval, questions=questions, questions_before=questions)
        self.config = replace(config, name=f"smollm2-notes-{seed}", seed=seed, eval=asked)
        self.folder = runs / self.config.name
        self.game = make_game(self.config.game)
        self.held = experiment.held_out(self.config, self.game)

    def trained(self, on_the_way: Callable[[int, Team], None] | None = None) -> Team:
        """Return the trained team; trains it, or what is missing of its steps.

        Args:
            on_the_way: called with the step and the team after each step.
        """
        done = len(read_metrics(self.folder)) if (self.folder / "metrics.jsonl").exists() else 0
        if done < self.config.steps:
            self._train(on_the_way)
        return experiment.load_team(self.folder)[1]

    def _train(self, on_the_way: Callable[[int, Team], None] | None) -> None:
        team, learner = experiment.build(self.config, game=self.game)

        def after_step(step: int, metrics: Mapping[str, float]) -> None:
            print(f"step {step}: score of turn 2 {metrics['score/turn_2']:.2f}", flush=True)
            if on_the_way:
                on_the_way(step, team)

        begun = (self.folder / "config.json").is_file()
        opened = RunLog.resume if begun else RunLog.create
        with opened(self.folder, self.config) as log:
            start = go_back_to_checkpoint(log, learner, self.config) if begun else 0
            experiment.train(
                self.config,
                learner,
                self.game.training_questions(),
                log,
                self.game,
                start=start,
                on_step=after_step,
            )

    def untrained(self) -> Team:
        """Return the team as it begins."""
        return experiment.build(self.config, game=self.game)[0]

    def debate(self, team: Team, *, greedy: bool = False) -> Evaluation:
        """Return the result of debates as they are."""
        debates = self.game.debates(min(experiment.EVAL_BATCH, len(self.held)))
        return self._asked(team, debates, greedy=greedy)

    def swapped(self, team: Team) -> Evaluation:
        """Return the result where each agent reads messages about another question."""
        return self._asked(team, SwappedPeers(self.game.config, len(self.held)))

    def alone(self, team: Team, questions: Sequence[Question]) -> list[Evaluation]:
        """Return the result of each member that reads nobody."""
        return [
            evaluate(
                Cast(team, (member,)),
                alone_in(self.game, [q.dealt_to((member,)) for q in questions]),
                [q.dealt_to((member,)) for q in questions],
                self.config.sampling,
                seed=self.config.eval.seed + member,
            )
            for member in range(team.num_agents)
        ]

    def _asked(self, team: Team, debates: Any, *, greedy: bool = False) -> Evaluation:
        sampling, seed = self.config.sampling, self.config.eval.seed
        return evaluate(team, debates, self.held, sampling, seed=seed, greedy=greedy)


def alone_in(game: LoadedGame, questions: Sequence[Question]) -> Any:
    """Return debates of one agent on questions that are told to it alone."""
    task = Task("alone", {"test": tuple(questions)}, template=game.task.template)
    config = replace(game.config, task=task, num_agents=1, split="test")
    return replace(game, task=task, config=config).debates(len(questions))


def together(parts: Sequence[Evaluation]) -> list[Transcript]:
    """Return debates in which the members' last messages of single debates stand side by side."""
    agents = tuple(f"agent_{seat}" for seat in range(len(parts)))
    merged = []
    for each in zip(*(part.transcripts for part in parts), strict=True):
        question = replace(each[0].question, private=())
        last = [
            replace(one.messages[-1], turn=0, agent=agent)
            for one, agent in zip(each, agents, strict=True)
        ]
        merged.append(Transcript(question, agents, tuple(last)))
    return merged


def of_turns(result: Evaluation) -> Result:
    """Return the figures of an evaluation, by turn."""
    return {
        "vote": [round(turn.vote, 4) for turn in result.turns],
        "half": [round(turn.vote_interval, 4) for turn in result.turns],
        "accuracy": [round(sum(t.accuracy) / len(t.accuracy), 4) for t in result.turns],
        "tokens": result.num_tokens,
        "questions": result.num_questions,
    }


def of_singles(parts: Sequence[Evaluation]) -> Result:
    """Return the figures of members that debate with nobody: each, the better, and the vote."""
    merged = together(parts)
    [stats] = turn_stats(merged)
    better = [max(message.score or 0.0 for message in one.messages) for one in merged]
    return {
        "alone": round(sum(stats.accuracy) / len(stats.accuracy), 4),
        "two alone": round(sum(better) / len(better), 4),
        "vote alone": round(stats.vote, 4),
        "tokens": sum(part.num_tokens for part in parts),
        "questions": len(merged),
    }


def kept(folder: Path, name: str, measure: Callable[[], Result]) -> None:
    """Write the result of a measurement, unless it is there already."""
    path = folder / f"{name.replace(' ', '_')}.json"
    if path.exists():
        return
    started, began = time.process_time(), time.strftime("%Y-%m-%d")
    found = measure()
    seconds = round(time.process_time() - started)
    facts = {"cpu_seconds": seconds, "date": began, "machine": platform.machine()}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, **facts}) + "\n", encoding="utf-8")
    print(f"{name}: {json.dumps(found)} in {seconds} CPU-s", flush=True)


def run(seeds: Sequence[int], questions: int, runs: Path, results: Path) -> None:
    """Train and measure what is missing: all seeds' debates first, then the controls."""
    labs = {seed: Lab(seed, questions, runs) for seed in seeds}
    for seed, lab in labs.items():
        kept(results, f"training-{seed}", partial(training, lab, partial(met, results, lab)))
        kept(results, f"after-{seed}", partial(debates, lab))
    kept(results, "before", partial(debates, labs[seeds[0]], trained=False))
    kept(results, "before greedy", partial(debates, labs[seeds[0]], trained=False, greedy=True))
    kept(results, "guesses", partial(guessed, labs[seeds[0]]))
    for seed, lab in labs.items():
        kept(results, f"after greedy-{seed}", partial(debates, lab, greedy=True))
        kept(results, f"peers shuffled-{seed}", partial(shuffled, lab))
        kept(results, f"alone-{seed}", partial(alone, lab))
        kept(results, f"alone on all pairs-{seed}", partial(alone_on_all_pairs, lab))


def debates(lab: Lab, *, trained: bool = True, greedy: bool = False) -> Result:
    """Measure debates as they are."""
    return of_turns(lab.debate(lab.trained() if trained else lab.untrained(), greedy=greedy))


def shuffled(lab: Lab) -> Result:
    """Measure debates in which agents read messages about other questions."""
    return of_turns(lab.swapped(lab.trained()))


def alone(lab: Lab) -> Result:
    """Measure members that debate with nobody."""
    return of_singles(lab.alone(lab.trained(), lab.held))


def alone_on_all_pairs(lab: Lab) -> Result:
    """Measure them on every pair of numbers, those of training included, equally often."""
    task = lab.game.task
    everything = [
        question for split in ("test", "validation", "train") for question in task.split(split)
    ]
    return of_singles(lab.alone(lab.trained(), all_pairs(everything, each=2)))


def guessed(lab: Lab) -> Result:
    """Return what guesses of the other's number give."""
    return guesses(lab.game.training_questions(), lab.held)


def met(results: Path, lab: Lab, step: int, team: Team) -> None:
    """Measure a team on its way, at some of its steps."""
    if step in ON_THE_WAY:
        name = f"after {step} steps-{lab.config.seed}"
        kept(results, name, lambda: of_turns(lab.debate(team)))


def training(lab: Lab, on_the_way: Callable[[int, Team], None]) -> Result:
    """Train a seed; return the scores of its steps in turn 2."""
    lab.trained(on_the_way)
    rows = read_metrics(lab.folder)
    return {"score": [round(row["score/turn_2"], 4) for row in rows]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "show"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.seeds, given.questions, given.runs, given.results)
    show(given.results, given.docs, given.picture)


if __name__ == "__main__":
    main()
