"""Teacher and student, segment by segment.

    while segments are left:
        the teacher reads each environment's situation and its last hint's feedback, and hints
        the student acts a segment with these hints, and learns (Stable-Baselines3's PPO)
        the teacher learns from the feedback, whitened over the segment (`maporl`'s token-level PPO)

To the teacher a segment is a debate of one agent and one turn, whose verifier is the student.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from maporl_agents.algorithms.maporl import SCHEME, play_step, train_step
from maporl_agents.config import GameConfig, PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models.loading import make_team
from maporl_agents.mutual.student import Hint, Segment, Student, whitened
from maporl_agents.mutual.worlds import WORLDS
from maporl_agents.seeding import seed_of
from maporl_agents.tiny.random_model import save_random_model
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.declared import Checked, whole
from maporl_env.prompts import Template
from maporl_env.similar_names import require_choice
from maporl_env.types import Question

Hints = Literal["teacher", "shuffled", "right", "none"]
TEMPLATE = Template(instruction="", opening="{question}", cue=" hint :")
FEEDBACK = ("bad", "so", "good")
WORDS = "last hint : none bad so good"
MOST_DEVIATIONS = 3.0
"""Whitened feedback beyond this counts as this."""

UNREADABLE = -2.0
"""Feedback, in standard deviations, for a text that is no hint: a model of random weights would
otherwise take long to find the words that the student knows."""


@dataclass(frozen=True)
class Settings(Checked):
    """Settings of a run.

    Attributes:
        world: name of the student's environment, see `worlds.WORLDS`.
        model: folder or name of the teacher's model; "" for a random one of two layers.
        hints: "teacher"; "shuffled", the teacher's dealt out among the environments at random;
            "right", the environment's own; "none".
        segments: iterations.
        envs: environments side by side, each with one hint per segment.
        steps: steps of a segment.
        grounding: segments at the start in which the student reads right hints and the teacher is
            silent, so that hints have their meaning before a teacher uses them.
        listening: segments after these in which the teacher learns and the student only acts and
            judges: a student that learns from the first hints of an untrained teacher forgets what
            they meant, and any words may end up with any meaning.
        freeze_teacher: the teacher hints, and learns nothing.
        freeze_student: the student acts and judges; it learns nothing after the grounding.
        critic_reads_hints: see `student.Student`. A critic that reads them expects of a right hint
            what it brings, so that a hint of which it expects nothing is worth as much.
        teacher_learning_rate: of the teacher's AdamW.
        max_new_tokens: of a hint.
        seed: of everything.
        student: further arguments of Stable-Baselines3's PPO.
    """

    world: str = "chain"
    model: str = ""
    hints: Hints = "teacher"
    segments: Annotated[int, whole(1)] = 50
    envs: Annotated[int, whole(2)] = 32
    steps: Annotated[int, whole(2)] = 16
    grounding: Annotated[int, whole(0)] = 10
    listening: Annotated[int, whole(0)] = 20
    freeze_teacher: bool = False
    freeze_student: bool = False
    critic_reads_hints: bool = False
    teacher_learning_rate: float = 2e-3
    max_new_tokens: int = 1
    seed: int = 0
    student: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("world", self.world, tuple(WORLDS))
        super().__post_init__()


class Teacher:
    """A language model that hints.

    Args:
        settings: of the run.
        words: that situations are made of, for a random model.
        hints: that the student knows.
        folder: where a random model is kept.
    """

    def __init__(self, settings: Settings, words: str, hints: Sequence[str], folder: Path) -> None:
        model = settings.model
        if not model:
            model = str(folder / "teacher")
            save_random_model(Path(model), [words, WORDS, *hints], seed_of(settings.seed, "model"))
        self.config = TrainConfig(
            game=GameConfig(num_agents=1, num_turns=1),
            team=TeamConfig(model=(model,)),
            sampling=Sampling(max_new_tokens=settings.max_new_tokens),
            ppo=PPOConfig(
                learning_rate=settings.teacher_learning_rate, kl_coef=0.0, epochs=2, minibatches=2
            ),
            steps=settings.segments,
            seed=settings.seed,
        )
        team = make_team(
            self.config.team, num_agents=1, num_turns=1, seed=seed_of(settings.seed, "team")
        )
        self.learner: Any = SCHEME.learner(self.config, team)
        self.frozen, self.seed = settings.freeze_teacher, settings.seed

    def teach(
        self,
        texts: Sequence[str],
        judge: Callable[[Sequence[str]], NDArray[np.float64]],
        segment: int,
    ) -> None:
        """Write a hint for each text, have them judged, and learn from that unless frozen.

        Args:
            texts: what is read.
            judge: maps the hints to whitened feedback, one number each.
            segment: number of the segment; names the sampling noise.
        """

        def score(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
            bounded = np.clip(judge(responses), -MOST_DEVIATIONS, MOST_DEVIATIONS)
            return list(0.5 + bounded / (2 * MOST_DEVIATIONS))  # a verifier's scores, in [0, 1]

        asked = [Question(str(env), text, "none", kind="text") for env, text in enumerate(texts)]
        options = DebateConfig(asked, num_agents=1, num_turns=1, verifier=score, template=TEMPLATE)
        game, seed = BatchedDebate(options, len(asked)), seed_of(self.seed, "segment", segment)
        if self.frozen:
            play_step(self.learner.team, game, asked, self.config, seed=seed)
        else:
            train_step(self.learner, game, asked, self.config, seed=seed)

    def parameters(self) -> list[Any]:
        """Return copies of all trained weights, to see whether they move."""
        trained = self.learner.trained.values()
        return [one.detach().clone() for policy in trained for one in policy]


@dataclass
class Run:
    """Teacher and student of a run; made by `start`.

    Attributes:
        settings: of the run.
        student: see `student.Student`.
        teacher: None where no hint comes from it.
        last: per environment, its last hint and how good that was, in words.
        rows: what each segment was like, see `segment`.
    """

    settings: Settings
    student: Student
    teacher: Teacher | None
    last: list[str]
    rows: list[dict[str, float]] = field(default_factory=list)

    def segment(self) -> dict[str, float]:
        """Play one segment and learn from it.

        Returns:
            right: share of the hints given that were right. hinted: share of the environments that
            got one. return: mean return of episodes that ended under a hint; unhinted: of the
            others; nan without any. moved: see `student.Segment`. spread: standard deviation of
            the feedback, before it is whitened.
        """
        number = len(self.rows)
        grounding = number < self.settings.grounding
        taught = self.teacher is not None and not self.settings.freeze_teacher
        listening = taught and number < self.settings.grounding + self.settings.listening
        still = self.settings.freeze_student or listening
        self.student.model.frozen = still and not grounding
        told = self.student.situations()
        if self.teacher is None or (grounding and self.settings.hints != "none"):
            names = [right if self.settings.hints != "none" else "" for _, right in told]
            found = self._act(names, told, shuffle=False)
        else:
            texts = [f"{text} {last}" for (text, _), last in zip(told, self.last, strict=True)]
            kept: list[dict[str, Any]] = []

            def judge(hints: Sequence[str]) -> NDArray[np.float64]:
                kept.append(self._act(hints, told, shuffle=self.settings.hints == "shuffled"))
                known = np.array([hint is not None for hint in kept[-1]["hints"]])
                return judged(kept[-1]["segment"].feedback, known)

            self.teacher.teach(texts, judge, number)
            [found] = kept
        self.rows.append(row := {"segment": float(number), **_figures(found)})
        return row

    def _act(
        self, names: Sequence[str], told: Sequence[tuple[str, str]], *, shuffle: bool
    ) -> dict[str, Any]:
        """Give hints by name, let the student act, and note feedback for the teacher to read."""
        known = self.student.hints
        hints: list[Hint] = [
            known.index(name.strip()) if name.strip() in known else None for name in names
        ]
        given = hints
        if shuffle:
            order = np.random.default_rng([self.settings.seed, len(self.rows)])
            given = [hints[place] for place in order.permutation(len(hints))]
        segment = self.student.act(given)
        levels = np.digitize(whitened(segment.feedback), [-0.5, 0.5])
        self.last = [
            "last hint : none" if hint is None else f"last hint : {known[hint]} {FEEDBACK[level]}"
            for hint, level in zip(hints, levels, strict=True)
        ]
        right = [name.strip() == truth for name, (_, truth) in zip(names, told, strict=True)]
        return {"segment": segment, "right": right, "hints": hints}


def judged(feedback: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return feedback for the teacher, (envs,): whitened over the hints that the student knows.

    A text that is none of its hints is no hint, and counts as `UNREADABLE`.
    """
    found = np.full(len(feedback), UNREADABLE)
    if known.any():
        found[known] = whitened(feedback[known])
    return found


def _figures(found: dict[str, Any]) -> dict[str, float]:
    segment: Segment = found["segment"]
    return {
        "right": float(np.mean(found["right"])),
        "hinted": float(np.mean([hint is not None for hint in found["hints"]])),
        "return": float(np.mean(segment.returns)) if segment.returns else float("nan"),
        "unhinted": float(np.mean(segment.unhinted)) if segment.unhinted else float("nan"),
        "moved": segment.moved,
        "spread": float(segment.feedback.std()),
    }


def start(settings: Settings, folder: Path) -> Run:
    """Return the beginning of a run.

    Args:
        settings: of the run.
        folder: keeps a random teacher's weights.

    Raises:
        ModuleNotFoundError: a library of the extra `mutual` is missing.
        ValueError: the teacher's model cannot be loaded.
    """
    make = WORLDS[settings.world]
    student = Student(
        make,
        settings.envs,
        settings.steps,
        seed_of(settings.seed, "student"),
        critic_reads_hints=settings.critic_reads_hints,
        **settings.student,
    )
    teacher = None
    if settings.hints in ("teacher", "shuffled"):
        words: str = getattr(make, "words", "")
        teacher = Teacher(settings, words, student.hints, folder)
    return Run(settings, student, teacher, ["last hint : none"] * settings.envs)


def run(settings: Settings, folder: Path) -> list[dict[str, float]]:
    """Carry out a run; write settings and one line per segment to `folder`, and return the lines.

    A run that is finished there is read instead. Arguments and errors as of `start`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, about = folder / "segments.json", asdict(settings)
    if kept.exists():
        told = json.loads(kept.read_text(encoding="utf-8"))
        if told["settings"] != about:
            raise ValueError(f"{kept} holds a run of other settings: name another folder")
        rows: list[dict[str, float]] = told["segments"]
        return rows
    both = start(settings, folder)
    for _ in range(settings.segments):
        both.segment()
    kept.write_text(json.dumps({"settings": about, "segments": both.rows}), encoding="utf-8")
    return both.rows
