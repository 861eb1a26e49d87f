"""Verifiers: they score answers in batches, each answer with a value in [0, 1].

A verifier is a callable `(questions, responses) -> scores`, or an object with `.score` of that
form. Scores are a list, an array, a tensor or an iterator of real numbers of any type. It may fail;
:class:`Scorer` stands between it and the rewards. A call that raises (also `SystemExit`), hangs or
returns the wrong number of scores leaves its whole batch without a score; a score that is no
number, NaN or outside [0, 1] leaves that one message without. Each is counted; none becomes a 0.
"""

from maporl_env.answers import gold
from maporl_env.services.http_json import (
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from maporl_env.verifiers.answer_key import AnswerKey, NumericTolerance
from maporl_env.verifiers.base import ScoreFunction, Verifier, VerifierLike
from maporl_env.verifiers.composite import Composite
from maporl_env.verifiers.function import FunctionVerifier, VerifierTimeout
from maporl_env.verifiers.judge import JudgeVerifier
from maporl_env.verifiers.latex_equivalence import MathVerifier
from maporl_env.verifiers.noisy_key import NoisyKey
from maporl_env.verifiers.remote import RemoteVerifier
from maporl_env.verifiers.scorer import Scorer

__all__ = [
    "AnswerKey",
    "Composite",
    "FunctionVerifier",
    "JudgeVerifier",
    "MathVerifier",
    "NoisyKey",
    "NumericTolerance",
    "RemoteError",
    "RemoteGarbage",
    "RemoteRefused",
    "RemoteTimeout",
    "RemoteUnavailable",
    "RemoteVerifier",
    "ScoreFunction",
    "Scorer",
    "Verifier",
    "VerifierLike",
    "VerifierTimeout",
    "gold",
]
