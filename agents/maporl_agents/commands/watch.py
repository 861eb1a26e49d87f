"""``maporl watch``: one debate in a browser, whose messages a person approves, or does not."""

from __future__ import annotations

import getpass
import secrets
import socket
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maporl_agents.commands.chosen_flags import OneDebate
from maporl_agents.config import GameConfig, JointGameConfig, Sampling, TeamConfig, Use, from_dict
from maporl_agents.terminal import console
from maporl_env.missing_extra import missing_extra
from maporl_env.services.http_json import is_loopback
from maporl_env.types import Question
from maporl_env.user_functions import whole_name

if TYPE_CHECKING:
    from rich.console import Console

    from maporl_agents.watch.record import Record
    from maporl_agents.watch.speakers import Speaker

JOIN_SECONDS = 10.0
"""How long the end waits for a message that is being written."""
OF_THE_SERVER = ("resume", "host", "port", "who", "show_private")
"""Flags that --resume may be given with."""


@dataclass(frozen=True)
class Watch(OneDebate):
    """Watch one debate in a browser; no message goes out before you have approved it.

    The command prints an address. The page there shows the debate message by message, and for each:

      approve     it goes out as it is
      edit        your text goes out in its place, and is all that the others ever read
      veto        nothing goes out; the agent is silent in this turn
      send back   its author reads your note and answers again (without a note it writes anew)

    or let it run, and step in when you like. What you do is kept in the folder of the debate (who,
    when, before and after; preferences.jsonl has it as pairs in TRL's format), and none of it is
    ever trained on as a model's own words. Ctrl-C stops; nothing is lost:

      maporl watch --run runs/maporl-shopping
      maporl watch --task notes --protocol dialogue --players model human
      maporl watch --resume runs/maporl-shopping/watched/2026-01-31-120000
    """

    players: tuple[str, ...] = ()
    """Who speaks for each agent: model (of the team), human (you type in the page), an
    OpenAI-compatible server as http://HOST:PORT/v1,model=NAME, or module:function or
    file.py:function, which turns prompts into texts. All are models if left out."""
    out: Path | None = None
    """A new folder for what happens; by default one of the date in the run's folder `watched`, or
    in runs/watched without a run."""
    resume: Path | None = None
    """Go on with the debate of this folder, where it stopped."""
    host: str = "127.0.0.1"
    """Where to listen; only this machine can open the page unless you say otherwise."""
    port: int = 8080
    """TCP port; 0 for any that is free."""
    who: str = ""
    """The name your decisions are kept under; the page can change it. Empty for that of the user
    who runs this."""
    show_private: bool = False
    """Also show what agents alone are told: private texts, the hidden reference, and what each
    agent reads."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        try:
            from maporl_agents.watch import app  # noqa: F401
        except ModuleNotFoundError as error:
            raise ImportError(missing_extra("watching", error.name, "serve")) from error
        watch(self, console())
        return 0


@dataclass(frozen=True)
class Setup:
    """All that a watched debate is made of, as it is saved in its folder.

    Attributes:
        game: that is played.
        joint: whether it is a `JointGameConfig`.
        sampling: how messages are drawn.
        team: settings of the models; None for those of the run.
        run: folder of the run; "" for none.
        checkpoint: of the run.
        weights: hash of the run's weights; "" for none.
        players: a name per agent, see `watch.speakers`.
        seed: of the sampling noise.
        question: that is debated.
    """

    game: GameConfig
    joint: bool
    sampling: Sampling
    team: TeamConfig | None
    run: str
    checkpoint: Use | Literal[""]
    weights: str
    players: tuple[str, ...]
    seed: int
    question: Question

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as plain values."""
        from maporl_agents.records.saved_settings import plain_settings

        plain: dict[str, Any] = plain_settings({**asdict(self), "question": None})
        return {**plain, "question": self.question.to_dict()}

    @classmethod
    def from_dict(cls, saved: Any, where: Path) -> Setup:
        """Inverse of :meth:`to_dict`; ValueError, naming the file, if it is something else."""
        try:
            kind = JointGameConfig if saved["joint"] else GameConfig
            return cls(
                game=from_dict(kind, saved["game"]),
                joint=bool(saved["joint"]),
                sampling=from_dict(Sampling, saved["sampling"]),
                team=None if saved["team"] is None else from_dict(TeamConfig, saved["team"]),
                **{name: saved[name] for name in ("run", "checkpoint", "weights", "seed")},
                players=tuple(saved["players"]),
                question=Question.from_dict(saved["question"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{where} does not hold the settings of a watched debate ({error}): restore it "
                "from a copy"
            ) from error


def watch(args: Watch, console: Console) -> None:
    """Serve the page of a debate until Ctrl-C."""
    from maporl_agents.watch.app import listen, server_of
    from maporl_agents.watch.session import Session

    if args.resume is not None:
        _require_resumable(args)
    listener = listen(args.host, args.port)
    with listener, _record(args, console) as record:
        setup = Setup.from_dict(record.settings, record.folder)
        game, speakers = _game_and_speakers(setup, console)
        session = Session(game, setup.question, speakers, _names(setup), record)
        who, token = args.who or _user(), secrets.token_urlsafe(24)
        server = server_of(session, listener, token, who=who, show_private=args.show_private)
        console.print(f"watch and decide at {address(args.host, listener, token)}", soft_wrap=True)
        if not is_loopback(args.host):
            console.print(
                "warning: other machines can reach this page, over plain HTTP: whoever has the "
                "address can read the debate and decide in it"
            )
        session.start()
        try:
            server.run(sockets=[listener])
        finally:
            session.close()
            if session.join(JOIN_SECONDS) and session.over:
                console.print(f"the debate is over; all of it is in {record.folder}")
            else:
                console.print(f"go on with it: maporl watch --resume {record.folder}")


def _record(args: Watch, console: Console) -> Record:
    """Return the record that the flags name: a new one, or one to go on with."""
    from maporl_agents.watch.record import Record

    if args.resume is not None:
        return Record.open(args.resume)
    setup = setup_of(args, console)
    return Record.create(args.out or default_folder(args.run), setup.to_dict())


def setup_of(args: Watch, console: Console) -> Setup:
    """Return what the flags say; ValueError if that is no debate."""
    from maporl_agents.commands.chosen_team import (
        chosen_game,
        fingerprint_of,
        memory_warning_of,
        settings_of_team,
        shout,
    )
    from maporl_agents.training.make_game import with_whole_names
    from maporl_agents.watch.speakers import require_roster

    chosen = chosen_game(args)
    if chosen.told:
        console.print(chosen.told)
    game = with_whole_names(chosen.settings)
    roster = require_roster(args.players, game.num_agents)
    questions = chosen.loaded.questions(chosen.split)
    question = questions[args.pick(len(questions))]
    shout(console, memory_warning_of(args.run, chosen, [question]))
    return Setup(
        game=game,
        joint=isinstance(game, JointGameConfig),
        sampling=chosen.sampling,
        team=settings_of_team(args),
        run="" if args.run is None else str(args.run.resolve()),
        checkpoint=args.checkpoint,
        weights="" if args.run is None else fingerprint_of(args.run, args.checkpoint),
        players=tuple(map(whole_name, roster)),
        seed=args.seed,
        question=question,
    )


def _game_and_speakers(setup: Setup, console: Console) -> tuple[Any, list[Speaker | None]]:
    """Return the game, and who speaks in it."""
    from maporl_agents.commands.chosen_team import fingerprint_of
    from maporl_agents.training.make_game import make_game
    from maporl_agents.watch.speakers import named

    if setup.run and setup.weights != fingerprint_of(Path(setup.run), setup.checkpoint):
        console.print(
            f"warning: the weights of {setup.run} have changed since this debate began: what is "
            "said from here on is said by others"
        )
    loaded = make_game(setup.game)
    speakers = named(setup.players, partial(_of_team, setup, loaded.config))
    return loaded.config.load(), speakers


def _of_team(setup: Setup, config: Any) -> Speaker:
    """Return the speaker of the team's models; ValueError if the question may be too long."""
    from maporl_agents.commands.chosen_team import speaking_team
    from maporl_agents.commands.play import require_room
    from maporl_agents.watch.speakers import TeamSpeaker

    run = Path(setup.run) if setup.run else None
    team = speaking_team(run, setup.checkpoint, setup.team, setup.game)
    if setup.game.long_questions != "keep":
        require_room(team, config, setup.sampling, setup.question)
    return TeamSpeaker(team, setup.sampling, setup.seed, config.toolbox)


def _require_resumable(args: Watch) -> None:
    """Raise ValueError where a flag contradicts the folder that is resumed."""
    for option in fields(args):
        if option.name not in OF_THE_SERVER and getattr(args, option.name) != option.default:
            flag = option.name.replace("_", "-")
            raise ValueError(
                f"--resume goes on with the settings of its folder: leave out --{flag}"
            )


def _names(setup: Setup) -> list[str]:
    """Return who speaks for each agent, in words; models by their run or name."""
    models = () if setup.team is None else setup.team.model
    team = setup.run or ", ".join(models)
    return [
        f"model {models[index] if len(models) == len(setup.players) else team}"
        if name == "model"
        else name
        for index, name in enumerate(setup.players)
    ]


def default_folder(run: Path | None) -> Path:
    """Return a folder that is not there yet, named by the date."""
    place = (Path("runs") if run is None else run) / "watched"
    stem = datetime.now(timezone.utc).strftime("%Y-%m-%d-%H%M%S")
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return next(place / name for name in names if not (place / name).exists())


def address(host: str, listener: socket.socket, token: str) -> str:
    """Return the whole address of the page."""
    port = listener.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/{token}/"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "somebody"
