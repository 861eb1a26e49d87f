"""From settings to the game that is played: `make_game` reads its task and makes its verifiers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from maporl_agents.config import GameConfig, JointGameConfig
from maporl_agents.config.from_values import nearest
from maporl_agents.records.storage import reason
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.feedback import feedback_named
from maporl_env.prompts import Template
from maporl_env.services.api_keys import VERIFIER_KEY, key_from_environment
from maporl_env.tasks import Task, load_task
from maporl_env.tasks.cowrite import CoWriting
from maporl_env.tools.by_name import toolbox_named, whole_tool
from maporl_env.types import Question
from maporl_env.user_functions import FORMS, function_named, is_own_name, object_named, whole_name
from maporl_env.verifiers import (
    AnswerKey,
    MathVerifier,
    NoisyKey,
    NumericTolerance,
    RemoteVerifier,
    VerifierLike,
)
from maporl_env.verifiers.judge import judge_named, whole_judge
from maporl_env.verifiers.programs import CodeTests
from maporl_env.verifiers.speedups import Speedups


def _learned(folder: str) -> VerifierLike:
    from maporl_agents.verifier.model import LearnedVerifier

    if not folder:
        raise ValueError(
            "a learned verifier is named with its folder: learned:FOLDER, as "
            "`maporl verifier train` made it"
        )
    key = _state_of(folder)
    if key not in _LOADED:
        _LOADED[key] = LearnedVerifier.load(Path(folder))
    return _LOADED[key]


_LOADED: dict[tuple[str, int], VerifierLike] = {}
"""The learned verifiers of the game that was made last, by file and time of writing: studies make
the same game several times."""


def _state_of(folder: str) -> tuple[str, int]:
    path = Path(folder) / "verifier.json"  # which is written last
    return str(path.resolve()), path.stat().st_mtime_ns if path.is_file() else 0


def _number(text: str, usual: float, example: str) -> float:
    try:
        return float(text or usual)
    except ValueError:
        raise ValueError(f"{text!r} is not a number, as in {example}") from None


def _noisy(reliability: str) -> VerifierLike:
    return NoisyKey(_number(reliability, 0.9, "noisy_key:0.9"))


def _tolerance(relative: str) -> VerifierLike:
    return NumericTolerance(_number(relative, 1e-6, "tolerance:1e-6"))


def _math(seconds: str) -> VerifierLike:
    return MathVerifier(_number(seconds, 5.0, "math:5"))


def _remote(url: str) -> VerifierLike:
    return RemoteVerifier(url, token=key_from_environment(VERIFIER_KEY))


def _judge(written: str) -> VerifierLike:
    return judge_named(written, key_from_environment(VERIFIER_KEY))


def _is_partial(share: str) -> bool:
    if share not in ("", "partial"):
        raise ValueError(f"tests are scored as tests or tests:partial, not tests:{share}")
    return share == "partial"


def _speedup(scale: str) -> VerifierLike:
    return Speedups(_number(scale, 10.0, "speedup:10"))


def _cowriting(first: str) -> VerifierLike:
    if first not in ("", "correct_first"):
        raise ValueError(
            f"programs of two are scored as cowriting or cowriting:correct_first, not "
            f"cowriting:{first}"
        )
    return CoWriting(correct_first=bool(first))


VERIFIERS: dict[str, Callable[[str], VerifierLike]] = {
    "key": lambda _: AnswerKey(),
    "tests": lambda share: CodeTests(partial=_is_partial(share)),
    "speedup": _speedup,
    "cowriting": _cowriting,
    "tolerance": _tolerance,
    "math": _math,
    "noisy_key": _noisy,
    "learned": _learned,
    "remote": _remote,
    "judge": _judge,
}
"""Verifiers by name; each is made from what follows a colon, as in "name:argument"."""


@dataclass(frozen=True)
class LoadedGame:
    """The game of a run: its task read once, its verifiers made once. Made by `make_game`.

    Attributes:
        task: where questions come from.
        config: the options of the environment, which hold the task and the verifiers as objects.
        train_split: name of the split that agents are trained on.
    """

    task: Task
    config: DebateConfig
    train_split: str

    def debates(self, batch_size: int, *, num_turns: int | None = None) -> BatchedDebate:
        """Return an environment of `batch_size` debates, with another number of turns if given."""
        config = self.config
        if num_turns not in (None, config.num_turns):
            config = replace(config, num_turns=num_turns)
        return BatchedDebate(config, batch_size)

    def questions(self, split: str) -> Sequence[Question]:
        """Return the questions of a split of the task; ValueError if it has no such split."""
        return self.task.split(split)

    def training_questions(self) -> Sequence[Question]:
        """Return the questions that agents are trained on."""
        return self.questions(self.train_split)


def make_game(game: GameConfig, task: Task | None = None) -> LoadedGame:
    """Read the task of a game and make its verifiers.

    Args:
        game: the settings.
        task: their task, where it has been read already.

    Raises:
        ValueError: the settings do not make a game, or name a file or verifier that is not there.
    """
    if task is None:
        task = load_task(game.task, game.data or None)
    config = replace(debate_config(game), task=task, data=None)
    return LoadedGame(task, config, training_split(game))


def debates_of(game: GameConfig, batch_size: int) -> BatchedDebate:
    """Return the environment of a game that is played only once; see `make_game`."""
    return make_game(game).debates(batch_size)


def questions_of(game: GameConfig, split: str) -> Sequence[Question]:
    """Return the questions of a split of the game's task."""
    return load_task(game.task, game.data or None).split(split)


def training_questions(game: GameConfig) -> Sequence[Question]:
    """Return the questions that agents are trained on: those of the split `training_split`."""
    return questions_of(game, training_split(game))


def training_split(game: GameConfig) -> str:
    """Return the name of the split that agents are trained on: "train" unless another is named."""
    return game.train_split or "train"


def debate_config(game: GameConfig) -> DebateConfig:
    """Return the options of a game as the environment takes them."""
    options: dict[str, Any] = {field.name: getattr(game, field.name) for field in fields(game)}
    del options["train_split"], options["long_questions"]  # which questions; not of the debate
    options["tools"] = toolbox_named(
        options["tools"],
        calls=options.pop("tool_calls"),
        chars=options.pop("tool_chars"),
        seconds=options.pop("tool_seconds"),
        shown=options.pop("tool_results") == "shown",
    )
    if options.pop("env"):
        raise ValueError(
            f"this needs a debate, and game.env={game.env} is another environment: it is trained "
            "by `maporl train` alone"
        )
    if isinstance(game, JointGameConfig):
        options["feedback"] = feedback_named(game.feedback)
        if game.protocol != "joint":  # whose two options they are: left as they are, they are none
            for name in ("show_parts", "feedback"):
                if getattr(game, name) == getattr(JointGameConfig(), name):
                    del options[name]
    names = (game.verifier, *filter(None, [game.feedback_verifier]))
    made = dict(zip(names, make_verifiers(names), strict=True))
    return DebateConfig(
        **options
        | {
            "data": game.data or None,
            "protocol_options": protocol_options(game.protocol_options),
            "personas": game.personas or None,
            "template": read_template(Path(game.template)) if game.template else None,
            # Without a choice the task decides: its answer key, or tests that run programs.
            "verifier": None if game.verifier == "key" else made[game.verifier],
            "feedback_verifier": made.get(game.feedback_verifier),
            "accept": own_function("accept", game.accept) if game.accept else None,
        }
    )


def protocol_options(given: Sequence[str]) -> dict[str, Any]:
    """Return options written KEY=VALUE by name; a value that is JSON is read so, else it is text.

    Raises:
        ValueError: one is written otherwise, or is set twice.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"protocol_options are written KEY=VALUE, not {text!r}")
        if name in options:
            raise ValueError(f"protocol_options set {name} twice")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def unjudged(game: GameConfig) -> GameConfig:
    """Return a game without the verifiers that it names."""
    return replace(game, verifier="key", feedback_verifier="")


def own_function(setting: str, name: str) -> Callable[..., Any]:
    """Return the user's function that a setting names; ValueError if it cannot be had."""
    try:
        return function_named(name)
    except ValueError as error:
        raise ValueError(f"{setting} {error}") from error


def with_whole_names(game: GameConfig) -> GameConfig:
    """Return a game whose own code in files is named by whole paths: found from any folder."""
    kept = ("task", "protocol", "verifier", "feedback_verifier", "feedback", "accept")
    names = {name: getattr(game, name) for name in kept if hasattr(game, name)}
    whole: dict[str, Any] = {field: _whole_name(name) for field, name in names.items()}
    return replace(game, **whole, tools=tuple(map(whole_tool, game.tools)))


def _whole_name(name: str) -> str:
    kind, colon, written = name.partition(":")
    return f"{kind}:{whole_judge(written)}" if kind == "judge" and colon else whole_name(name)


def make_verifier(name: str) -> VerifierLike:
    """Return a verifier by its name, "name:argument", or one's own; see :func:`make_verifiers`."""
    return make_verifiers([name])[0]


def make_verifiers(names: Sequence[str]) -> list[VerifierLike]:
    """Return the verifiers that are used together.

    Learned ones that are in memory are taken from there. Others leave it before any is read.

    Raises:
        ValueError: an unknown name, one's own that cannot be had, or an argument that does not make
            a verifier.
    """
    parts = [name.partition(":") for name in names]
    for name, (kind, _, _) in zip(names, parts, strict=True):
        if kind not in VERIFIERS and not is_own_name(name):
            raise ValueError(
                f"unknown verifier {kind!r}{nearest(kind, VERIFIERS)}: "
                f"choose one of {', '.join(VERIFIERS)}, or your own as {FORMS}"
            )
    wanted = {_state_of(argument) for kind, _, argument in parts if kind == "learned"}
    for other in _LOADED.keys() - wanted:
        del _LOADED[other]
    return [
        VERIFIERS[kind](argument) if kind in VERIFIERS else _own_verifier(name)
        for name, (kind, _, argument) in zip(names, parts, strict=True)
    ]


def _own_verifier(name: str) -> VerifierLike:
    """Return a user's verifier: a function, an object with `.score`, or a class of such objects."""
    try:
        found = object_named(name)
    except ValueError as error:
        raise ValueError(f"verifier {error}") from error
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise ValueError(
                f"verifier {name!r} cannot be made: it raised {type(error).__name__}: {error}"
            ) from error
    if not callable(getattr(found, "score", found)):
        raise ValueError(
            f"verifier {name!r} is {type(found).__name__}: it must be a function (questions, "
            "responses) -> scores, or have a method score of that form"
        )
    verifier: VerifierLike = found
    return verifier


def read_template(path: Path) -> Template:
    """Read a template from a JSON object; fields that are left out keep their usual words."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no template file {str(path)!r}: game.template is the path of a JSON file "
            "of texts, or empty for the task's own words"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read the template {str(path)!r}: {reason(error)}") from error
    known = [field.name for field in fields(Template)]
    if not isinstance(words, dict) or not all(isinstance(text, str) for text in words.values()):
        raise ValueError(f"the template {str(path)!r} must be a JSON object of texts")
    unknown = sorted(words.keys() - set(known))
    if unknown:
        raise ValueError(f"the template {str(path)!r} has unknown fields {unknown}; known: {known}")
    return Template(**words)
