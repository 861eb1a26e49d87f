"""``maporl verifier data | train | eval | serve``: a learned verifier from samples to service."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from maporl_agents.config import LongQuestions
from maporl_agents.verifier.answering import Answerers, Answering
from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.service_queue import Limits
from maporl_env.user_functions import is_own_name

if TYPE_CHECKING:
    from rich.console import Console

    from maporl_agents.verifier.data import Example, Half, Sampled
    from maporl_agents.verifier.evaluation import VerifierReport
    from maporl_env.prompts import Template
    from maporl_env.tasks import Task
    from maporl_env.types import Question
    from maporl_env.verifiers import VerifierLike


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
    """How many to train on."""
    test_questions: int = 300
    """How many to measure on."""
    long_questions: LongQuestions = "refuse"
    """Questions whose debate may not fit a model's window: as for `maporl train
    --game.long-questions`."""
    agents: int = 2
    """Agents per debate."""
    turns: int = 1
    """Turns per debate; 1 gives independent answers."""
    debates: int = 16
    """Debates per question; each gives agents x turns answers."""
    seed: int = 0
    """Names the sampling noise and the division of recordings."""
    answerers: Annotated[Answerers, tyro.conf.arg(name="")] = field(default_factory=Answerers)
    sampling: Annotated[Answering, tyro.conf.arg(name="")] = field(default_factory=Answering)

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.records import storage
        from maporl_agents.verifier.data import balance, save_examples

        self._refuse_idle()
        _require_new(self.out)
        halves, template = self._recorded() if self.recordings else self._sampled(console)
        self.out.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = {"template": asdict(template), "made_by": _plain(self)}
        for name, (examples, unjudged, _) in halves.items():
            save_examples(self.out / f"{name}.jsonl", examples)
            about[name] = asdict(balance(examples, seed=self.seed)[1]) | {"unjudged": unjudged}
            console.print(f"{name}: {_sentence(about[name])}")
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
                f"with --recordings nothing is asked and nobody answers, so that {names} would do "
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
                )
            if ids := halves[name].left_out:
                console.print(f"left out as too long: {len(ids):,} {name} questions ({some(ids)})")
        return halves, task.template

    def _chosen(self, task: Task) -> tuple[list[Question], list[Question]]:
        """The questions to train on and to measure on; ValueError if there are none apart."""
        from maporl_agents.algorithms.maporl import questions_of_step
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


@dataclass(frozen=True)
class Train:
    """Train a verifier on sampled answers, balanced per question, and measure it.

    Writes OUT: weights, verifier.json (settings, training report), report.json, reliability.png.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder that `maporl verifier data` made."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new folder."""
    balance: Literal["question", "none"] = "question"
    """As many right as wrong answers to each question, or everything as it was sampled."""
    config: Annotated[VerifierConfig, tyro.conf.arg(name="")] = field(
        default_factory=VerifierConfig
    )
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = field(default_factory=FitConfig)

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.models.parallel_bases import share_cores
        from maporl_agents.records.questions_record import fingerprints
        from maporl_agents.verifier.data import balance, load_examples
        from maporl_agents.verifier.evaluation import evaluate_verifier
        from maporl_agents.verifier.model import LearnedVerifier
        from maporl_agents.verifier.training import fit

        _require_new(self.out)
        examples = load_examples(self.data / "train.jsonl")
        test = load_examples(self.data / "test.jsonl")
        _require_measurable(self.data, examples, test)
        even, counts = balance(examples, seed=self.fit.seed)
        if self.balance == "question":
            console.print(_sentence(asdict(counts)))
            examples = even
        verifier = LearnedVerifier(self.config, _template(self.data), seed=self.fit.seed)
        if verifier.base.device.type == "cpu":
            share_cores(1)
        result = fit(verifier, examples, self.fit, lambda step, loss: _show(console, step, loss))
        facts = {
            "balance": self.balance,
            "counts": asdict(counts),
            "examples": result.examples,
            "too_long": result.too_long,
            "losses": list(result.losses),
            "fit": asdict(self.fit),
            "trained_on": fingerprints(example.question for example in examples),
        }
        verifier.save(self.out, facts)  # first: whatever happens to the measurement
        report = evaluate_verifier(verifier, test)
        _write_report({self.out.name: report}, self.out, console)
        return 0


@dataclass(frozen=True)
class Eval:
    """Measure verifiers on held-out answers: AUC, within-question AUC, calibration, nudges."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder that `maporl verifier data` made; its test.jsonl is used."""
    verifiers: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[VERIFIER ...]")
    ]
    """Folders that `maporl verifier train` made."""
    out: Path | None = None
    """Also write report.json and reliability.png into this folder."""
    device: str = "auto"
    """ "cpu", "cuda", ...; "auto" takes a GPU if there is one."""

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.verifier.data import load_examples
        from maporl_agents.verifier.evaluation import evaluate_verifier
        from maporl_agents.verifier.model import LearnedVerifier

        if not self.verifiers:
            raise ValueError("name at least one verifier's folder")
        examples = load_examples(self.data / "test.jsonl")
        reports = {
            str(folder): evaluate_verifier(LearnedVerifier.load(folder, self.device), examples)
            for folder in self.verifiers
        }
        _write_report(reports, self.out, console)
        return 0


SERVED = ("key", "noisy_key", "learned", "remote", "tolerance")
"""Verifiers that take words from clients and run nothing of them."""


@dataclass(frozen=True)
class Serve:
    """Serve a verifier over HTTP, on this machine unless told otherwise.

    Verifiers that run programs or tests are refused: what clients send would run here.

    The token is read from a file or from the environment variable MAPORL_VERIFIER_TOKEN.
    """

    verifier: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VERIFIER")]
    """A folder that `maporl verifier train` made; "key", the answer key (clients send it);
    "tolerance:SHARE", "noisy_key:SHARE", "learned:FOLDER" or "remote:URL"; or your own reward as
    module:function or file.py:function, which then has to bear what clients send."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine needs a token."""
    port: int = 8000
    """Of TCP."""
    token_file: Path | None = None
    """File whose only line is the token that clients must send."""
    limits: Limits = field(default_factory=Limits)

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        try:
            from maporl_agents.verifier import serve
        except ModuleNotFoundError as error:
            raise ImportError(
                f"serving needs {error.name}: install the extra, pip install 'maporl[serve]'"
            ) from error
        from maporl_agents.training.make_game import TOKEN_VARIABLE

        token = os.environ.get(TOKEN_VARIABLE) or None
        if self.token_file is not None:
            token = self.token_file.read_text(encoding="utf-8").strip()
        serve.require_token(self.host, token)
        verifier = served(self.verifier)
        console.print(f"serving {self.verifier} at http://{self.host}:{self.port}")
        serve.run(verifier, host=self.host, port=self.port, token=token, limits=self.limits)
        return 0


def served(name: str) -> VerifierLike:
    """Return the verifier that is served under a name: a known one, one's own, or a folder's.

    Raises:
        ValueError: it would run what clients send, or there is none.
    """
    from maporl_agents.training.make_game import VERIFIERS, make_verifier

    kind = name.partition(":")[0]
    if kind in VERIFIERS and kind not in SERVED:
        raise ValueError(
            f"the verifier {kind!r} is not served, because it runs programs and tests, and "
            f"clients would send both: choose one of {', '.join(SERVED)}, or a folder"
        )
    by_name = kind in SERVED or (is_own_name(name) and not Path(name).exists())
    return make_verifier(name if by_name else f"learned:{name}")


Action = (
    Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
)


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder")


def _require_measurable(data: Path, train: Sequence[Example], test: Sequence[Example]) -> None:
    """Raise ValueError, before anything is trained, if the test half cannot measure it."""
    from maporl_agents.verifier.data import balance, by_question

    shared = by_question(train).keys() & by_question(test).keys()
    if shared:
        raise ValueError(
            f"{len(shared)} questions of {data / 'test.jsonl'} are also trained on, such as "
            f"{min(shared)[:60]!r}: make the data again"
        )
    if not balance(test, seed=0)[0]:
        raise ValueError(
            f"no question of {data / 'test.jsonl'} has both right and wrong answers, so nothing "
            "can be measured: sample more of them"
        )


def _template(data: Path) -> Template:
    from maporl_agents.records import storage
    from maporl_env.prompts import Template

    about = storage.load_json(data / "data.json")
    try:
        return Template(**about["template"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{data / 'data.json'} has no template: make the data again") from error


def _write_report(
    reports: Mapping[str, VerifierReport], folder: Path | None, console: Console
) -> None:
    from maporl_agents.records import storage
    from maporl_agents.verifier.evaluation import draw_reliability, quality_table

    console.print(quality_table(reports))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = {name: report.to_dict() for name, report in reports.items()}
        storage.save_json(folder / "report.json", whole)
        draw_reliability(reports, folder / "reliability.png")
        console.print(f"wrote {folder / 'report.json'} and {folder / 'reliability.png'}")


def _show(console: Console, step: int, loss: float) -> None:
    if step % 50 == 0:
        console.print(f"step {step:5d}  loss {loss:.4f}")


def _sentence(counts: Mapping[str, int]) -> str:
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
