"""``maporl verifier data | train | eval | serve``: a learned verifier from samples to service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from maporl_agents.commands.verifier_data import Data, counts_in_words, require_new
from maporl_agents.terminal import console
from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.service_queue import Limits
from maporl_env.missing_extra import missing_extra
from maporl_env.services.api_keys import VERIFIER_KEY, key_from_environment
from maporl_env.user_functions import is_own_name

if TYPE_CHECKING:
    from rich.console import Console

    from maporl_agents.verifier.data import Example
    from maporl_agents.verifier.evaluation import VerifierReport
    from maporl_env.prompts import Template
    from maporl_env.verifiers import VerifierLike


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

        require_new(self.out)
        self.config.require_acting()
        examples = load_examples(self.data / "train.jsonl")
        test = load_examples(self.data / "test.jsonl")
        _require_measurable(self.data, examples, test)
        even, counts = balance(examples, seed=self.fit.seed)
        if self.balance == "question":
            console.print(counts_in_words(asdict(counts)))
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
    module:function or file.py:function, which must accept any text that clients send."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine needs a token."""
    port: int = 8000
    """TCP port."""
    token_file: Path | None = None
    """File whose only line is the token that clients must send."""
    limits: Limits = field(default_factory=Limits)

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        try:
            from maporl_agents.verifier import serve
        except ModuleNotFoundError as error:
            raise ImportError(missing_extra("serving", error.name, "serve")) from error

        token = key_from_environment(VERIFIER_KEY)
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


@dataclass(frozen=True)
class Verifier:
    """Make a learned verifier: sample data for it, train it, measure it, serve it."""

    action: Annotated[Action, tyro.conf.arg(name="")]

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        return self.action(console())


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
