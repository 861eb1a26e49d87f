"""Language models as players of the environment benchmark: trained runs and untrained models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from maporl_agents import tiny
from maporl_agents.config import RunConfig, Sampling, TeamConfig, scheme_of
from maporl_agents.config.from_values import nearest
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.loading import make_team
from maporl_agents.models.parallel_bases import share_cores
from maporl_agents.models.sources.model_download import FETCHABLE, local_name
from maporl_agents.models.team import Team
from maporl_agents.play.model_defaults import with_model_defaults
from maporl_agents.play.speak import Engine, requests, speak
from maporl_agents.records.checkpoint_folder import fingerprint, step_of
from maporl_agents.seeding import seed_of
from maporl_agents.training.experiment import load_team
from maporl_agents.training.make_game import training_split
from maporl_agents.training.validation import chosen_checkpoint
from maporl_agents.types import TokenIds
from maporl_env.batched import Prompt
from maporl_env.benchmark.players import SCRIPTED, Players, named_agents
from maporl_env.benchmark.suite import CASES, SPLIT, Case
from maporl_env.types import Question

TAUGHT = {
    "tiny": ("shopping", "receipts"),
    "tiny-sharing": ("sharing", "coins"),
    "tiny-sharing-qwen2": ("sharing", "coins"),
    "tiny-maker": ("expressions", "routes"),
}
"""The tasks whose words each built-in model knows."""


class TeamSpeaker:
    """Answers the prompts of one batch of debates by a team; own messages stay sampled ids.

    Args:
        team: the policies.
        sampling: how messages are sampled.
        seed: of the sampling.
        engine: writes the messages; None for that of the team.

    Attributes:
        tokens: generated so far.
    """

    def __init__(
        self, team: Team, sampling: Sampling, seed: int, engine: Engine | None = None
    ) -> None:
        self.team, self.sampling, self.seed, self.engine = team, sampling, seed, engine
        self.tokens = 0
        self._calls = 0
        self._own: dict[tuple[int, int], list[TokenIds]] = {}
        self._kept = KeptCaches(team.bases, sampling.cache_gb)

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return one message per prompt."""
        own = [self._own.setdefault((p.debate, p.agent_index), []) for p in prompts]
        asked = requests(self.team, prompts, own)
        stream = seed_of(self.seed, "sample", self._calls)
        completions = speak(
            self.team, asked, self.sampling, stream, engine=self.engine, kept=self._kept
        )
        self._calls += 1
        for said, completion in zip(own, completions, strict=True):
            said.append(completion.ids)
            self.tokens += len(completion.ids)
        return [completion.text for completion in completions]


@dataclass(frozen=True)
class TeamPlayers:
    """Teams of language models that play; see `maporl_env.benchmark.Players`.

    Attributes:
        name: the label of their row.
        about: the model or run, and how it is decoded.
        team_of: returns the team for a case.
        sampling: how messages are drawn.
        refuse: returns why a case is not played, "" if it is.
    """

    name: str
    about: dict[str, Any]
    team_of: Callable[[Case], Team]
    sampling: Sampling
    refuse: Callable[[Case], str]

    def refusal(self, case: Case) -> str:
        """Return the reason why the team cannot play a case, "" if it can."""
        return self.refuse(case)

    def speaker(self, case: Case, questions: Sequence[Question], seed: int) -> TeamSpeaker:
        """Return who speaks."""
        return TeamSpeaker(self.team_of(case), self.sampling, seed_of(seed, "bench", case.name))


def players_of(
    name: str,
    *,
    label: str = "",
    temperature: float | None = None,
    max_new_tokens: int = 0,
    transfer: bool = False,
) -> Players:
    """Return players by name.

    Args:
        name: a scripted agent, "module:function", the folder of a run, a built-in model, or the
            folder or hub name of one.
        label: of their row, if not the name.
        temperature: of models; None takes a run's own, else that of the model's generation
            settings, else 1. 0 is greedy.
        max_new_tokens: of models, for each message; 0 takes a run's own, else 32 for built-in
            models and 300 for others.
        transfer: let a run also play cases of other tasks and protocols than its own.

    Raises:
        ValueError: there is nothing of that name, or an option has no meaning for it.
    """
    drawn = {"temperature": temperature, "max_new_tokens": max_new_tokens or None}
    changed = {option: value for option, value in drawn.items() if value is not None}
    if name in SCRIPTED or (":" in name and not Path(name).exists()):
        if changed or transfer:
            raise ValueError(
                f"{name!r} is no model: leave out the options for decoding and transfer"
            )
        return named_agents(name, label)
    if is_run(Path(name)):
        return run_players(Path(name), label or name, changed, transfer)
    if transfer:
        raise ValueError(
            f"transfer is for runs, which were trained for some cases; {name!r} is no run"
        )
    require_model(name, [*SCRIPTED, *tiny.MODELS, *FETCHABLE], "module:function, ")
    return model_players(name, label or name, changed)


def require_model(
    name: str, known: Sequence[str] = (*tiny.MODELS, *FETCHABLE), others: str = ""
) -> None:
    """Raise ValueError unless a name may be a model's: built in, fetched, a folder's, a hub's.

    Args:
        name: of the model.
        known: other known names, for the error.
        others: other valid inputs, for the error.
    """
    if name in {*tiny.MODELS, *FETCHABLE} or Path(name).is_dir() or "/" in name:
        return
    raise ValueError(
        f"no agents {name!r}{nearest(name, known)}: choose one of {', '.join(known)}, {others}the "
        "folder of a run or model, or a hub name with its owner (owner/model)"
    )


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run; the config.json of a model has no game."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and "game" in settings


def run_players(folder: Path, label: str, changed: dict[str, Any], transfer: bool) -> TeamPlayers:
    """Return the trained team of a run, which plays cases like the game it was trained on."""
    config, team = load_team(folder)
    if "max_new_tokens" in changed:
        changed = {**changed, "agent_max_new_tokens": (), "turn_max_new_tokens": ()}
    sampling = replace(config.sampling, **changed)
    saved = chosen_checkpoint(folder, config.eval.use)
    about = {
        "kind": "run",
        "scheme": scheme_of(config),
        "task": config.game.task,
        "models": list(config.team.model),
        "step": None if saved is None else step_of(saved),
        "seed": config.seed,
        "fingerprint": _fingerprint([folder / "config.json"], saved),
        "transfer": transfer,
        **_decoding(sampling),
    }

    def refuse(case: Case) -> str:
        return (
            _seen(config, case)
            or ("" if transfer else _foreign(config, case))
            or _short_of_seats(team, case)
        )

    return TeamPlayers(label, about, lambda case: team, sampling, refuse)


def _seen(config: RunConfig, case: Case) -> str:
    split = training_split(config.game)
    if (config.game.task, split) == (case.task, SPLIT):
        return f"trained on the split {split!r} of {case.task}, which the benchmark asks"
    return ""


def _foreign(config: RunConfig, case: Case) -> str:
    game = config.game
    if (game.task, game.protocol) == (case.task, case.protocol):
        return ""
    return f"trained on {game.task} in protocol {game.protocol} (transfer plays other cases too)"


def _short_of_seats(team: Team, case: Case) -> str:
    try:
        for agent in range(case.num_agents):
            team.base_of(team.policy(agent, 0))
    except ValueError:
        return f"the team has policies for {team.num_agents} agents"
    return ""


def model_players(name: str, label: str, changed: dict[str, Any]) -> TeamPlayers:
    """Return an untrained model, which plays all agents of every case.

    "tiny" stands for the built-in model that was pre-trained for a case's task; other built-in
    models refuse the tasks whose words they do not know.
    """
    sampling = replace(model_sampling(name), **changed)

    def model_of(case: Case) -> str:
        return "tiny-sharing" if name == "tiny" and case.task not in TAUGHT["tiny"] else name

    def refuse(case: Case) -> str:
        known = TAUGHT.get(model_of(case), (case.task,))
        return "" if case.task in known else f"{name} knows only the words of {', '.join(known)}"

    files = _model_files(name)
    known = {"fingerprint": _fingerprint(files)} if files else {}
    about = {"kind": "model", "models": [name], **known, **_decoding(sampling)}
    return TeamPlayers(label, about, lambda case: _team(model_of(case)), sampling, refuse)


def model_sampling(name: str) -> Sampling:
    """Return the default sampling of an untrained model, with the truncation that it names."""
    plain = Sampling(max_new_tokens=32 if name in tiny.MODELS else 300)
    return with_model_defaults(plain, [name])[0]


def _model_files(name: str) -> list[Path]:
    """Return the files that a model is made of, in order; [] for one on the hub."""
    if name in tiny.MODELS:
        models = [name, "tiny-sharing"] if name == "tiny" else [name]
        folders = [tiny.WEIGHTS / folder for model in models for folder in tiny.MODELS[model]]
    else:
        folders = [Path(local_name(name))]
    found = [sorted(folder.iterdir()) for folder in folders if folder.is_dir()]
    return [file for files in found for file in files if file.is_file()]


def _fingerprint(files: Sequence[Path], saved: Path | None = None) -> str:
    """Return a hash of files' names and content, and of a checkpoint's."""
    whole = hashlib.sha256(b"" if saved is None else fingerprint(saved).encode())
    for path in files:
        whole.update(path.name.encode() + path.stat().st_size.to_bytes(8, "big"))
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                whole.update(chunk)
    return whole.hexdigest()[:16]


def _decoding(sampling: Sampling) -> dict[str, Any]:
    cut = sampling.truncation
    return {
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        **(cut._asdict() if cut else {}),
    }


@lru_cache(maxsize=1)
def _team(model: str) -> Team:
    """Return a team of one model that can play every agent of the suite."""
    team = make_team(
        TeamConfig(model=(model,), tuning="none"),
        num_agents=max(case.num_agents for case in CASES),
        num_turns=max(case.num_turns for case in CASES),
        seed=0,
    )
    share_cores(len(team.bases))
    return team
