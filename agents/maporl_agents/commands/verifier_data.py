"""``maporl verifier data``: answers with verdicts, to train a verifier on and to measure it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from maporl_agents.config import LongQuestions
from maporl_agents.verifier.answering import Answerers, Answering

if TYPE_CHECKING:
    from rich.console import Console

    from maporl_agents.verifier.data import Half, Sampled
    from maporl_env.prompts import Template
    from maporl_env.tasks import Task
    from maporl_env.types import Question


@dataclass(frozen=True)
class Data:
    """Sample many answers per question and label them by the key (or read recorded ones).

    Writes OUT/train.jsonl, OUT/test.jsonl (answers to other questions) and OUT/data.json.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new folder."""
    task: str = "shopping"
    """A built-in task, or a JSONL or CSV file of questions."""
    data: Path | None = None
    """The task's file, for tasks that need one."""
    recordings: Path | None = None
    """Take the texts of this file instead of sampling: transcripts, or GSM8K's
    example_model_solutions.jsonl; divided by question."""
    held_out_share: float = 0.2
    """Of the questions, for the test half: of `recordings`, and of a task whose training and test
    split are one list, as a file's that tells no split."""
    split: str = ""
    """Questions to train on; empty for "verifier" if the task has such a split, which agents are
    then not trained on, else "train"."""
    test_split: str = "test"
    """Questions to measure on."""
    questions: int = 2000
    """Number of questions to train on."""
    test_questions: int = 300
    """Number of questions to measure on."""
    long_questions: LongQuestions = "refuse"
    """Questions whose debate may not fit a model's window: as for `maporl train
    --game.long-questions`."""
    agents: int = 2
    """Agents per debate."""
    turns: int = 1
    """Turns per debate; 1 gives independent answers."""
    debates: int = 16
    """Debates per question; each gives agents x turns answers."""
    verifier: str = ""
    """The verifier that labels sampled answers as right (1) or wrong (0): a name, or your own as
    module:function or file.py:function; empty for the task's own, mostly the key."""
    seed: int = 0
    """Names the sampling noise and the division of recordings."""
    answerers: Annotated[Answerers, tyro.conf.arg(name="")] = field(default_factory=Answerers)
    sampling: Annotated[Answering, tyro.conf.arg(name="")] = field(default_factory=Answering)

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.records import storage
        from maporl_agents.verifier.data import balance, save_examples

        self._refuse_idle()
        require_new(self.out)
        halves, template = self._recorded() if self.recordings else self._sampled(console)
        self.out.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = {"template": asdict(template), "made_by": _plain(self)}
        for name, (examples, unjudged, _) in halves.items():
            save_examples(self.out / f"{name}.jsonl", examples)
            about[name] = asdict(balance(examples, seed=self.seed)[1]) | {"unjudged": unjudged}
            console.print(f"{name}: {counts_in_words(about[name])}")
            if unjudged:
                console.print(f"{name}: left out {unjudged} answers that could not be judged")
        storage.save_json(self.out / "data.json", about)
        return 0

    def _refuse_idle(self) -> None:
        """Raise ValueError for options that would do nothing."""
        given = set(_changed(self, Data(self.out)))
        idle = given - {"recordings", "held-out-share", "seed"}
        if self.recordings is not None and idle:
            names = ", ".join(f"--{name}" for name in sorted(idle))
            raise ValueError(
                f"with --recordings no model answers questions, so that {names} would do "
                "nothing: leave out either"
            )

    def _recorded(self) -> tuple[dict[str, Sampled], Template]:
        from maporl_agents.verifier.data import Sampled, recorded_answers, split
        from maporl_env.replay import LAST_LINE_TEMPLATE

        assert self.recordings is not None
        train, test = split(recorded_answers(self.recordings), self.held_out_share, self.seed)
        return {"train": Sampled(train, 0), "test": Sampled(test, 0)}, LAST_LINE_TEMPLATE

    def _sampled(self, console: Console) -> tuple[dict[str, Sampled], Template]:
        from maporl_agents.models.loading import make_team
        from maporl_agents.models.parallel_bases import share_cores
        from maporl_agents.play.window_check import some
        from maporl_agents.training.make_game import make_verifier
        from maporl_agents.verifier.data import sample_answers
        from maporl_env.config import DebateConfig
        from maporl_env.tasks import load_task

        task = load_task(self.task, self.data)
        chosen = self._chosen(task)
        team = make_team(
            self.answerers.team(),
            num_agents=self.agents,
            num_turns=self.turns,
            seed=self.seed,
        )
        if team.bases[0].device.type == "cpu":
            share_cores(len(team.bases))
        game = DebateConfig(task=task, num_agents=self.agents, num_turns=self.turns)
        sampling = self.sampling.sampling(self.task)
        halves = {}
        for name, questions in zip(("train", "test"), chosen, strict=True):
            count = len(questions)
            with console.status(f"{name}: {self.debates} debates on {count} questions ..."):
                halves[name] = sample_answers(
                    team,
                    game,
                    questions,
                    sampling,
                    debates_per_question=self.debates,
                    seed=self.seed,
                    long_questions=self.long_questions,
                    verifier=make_verifier(self.verifier) if self.verifier else None,
                )
            if ids := halves[name].left_out:
                console.print(f"left out as too long: {len(ids):,} {name} questions ({some(ids)})")
        return halves, task.template

    def _chosen(self, task: Task) -> tuple[list[Question], list[Question]]:
        """The questions to train on and to measure on; ValueError if there are none apart."""
        from maporl_agents.play.questions import questions_of_step
        from maporl_agents.verifier.data import choose_halves, is_one_list

        usual = "verifier" if "verifier" in task.splits else "train"
        train, test = task.split(self.split or usual), task.split(self.test_split)
        if self.held_out_share != Data.held_out_share and not is_one_list(train, test):
            raise ValueError(
                "--held-out-share divides --recordings and splits that are one list; these are "
                "two, --split and --test-split: leave it out"
            )

        def draw(questions: Sequence[Question], half: Half) -> list[Question]:
            wanted = self.questions if half == "train" else self.test_questions
            return questions_of_step(questions, 0, min(wanted, len(questions)), self.seed)

        return choose_halves(train, test, draw, held_out_share=self.held_out_share, seed=self.seed)


def require_new(folder: Path) -> None:
    """Raise ValueError unless nothing stands at a path, or an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder")


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Return the counts of `verifier.data.balance` as one sentence."""
    return (
        f"{counts['answers']} answers to {counts['questions']} questions; dropped "
        f"{counts['all_right']} with right answers only and {counts['all_wrong']} with wrong ones "
        f"only; {counts['kept']} answers are balanced"
    )


def _changed(given: Any, usual: Any) -> Iterator[str]:
    """Yield the flags that are not at their defaults."""
    for name in (one.name for one in fields(given)):
        value, default = getattr(given, name), getattr(usual, name)
        if is_dataclass(value):
            yield from _changed(value, default)
        elif value != default:
            yield name.replace("_", "-")


def _plain(command: Data) -> dict[str, Any]:
    plain = asdict(command)
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
