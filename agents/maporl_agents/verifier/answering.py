"""Settings of ``maporl verifier data``: the models that answer and how they are sampled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from maporl_agents.config import Attention, Quantization, Sampling, TeamConfig
from maporl_env.tasks import BUILT_IN


@dataclass(frozen=True)
class Answerers:
    """The language models that answer, as `config.TeamConfig` has them; nothing is trained."""

    model: tuple[str, ...] = ("tiny",)
    """One for all agents or one per agent; "tiny", a folder, or a hub name."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights."""
    device: str = "auto"
    """ "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one."""
    device_map: Literal["one", "auto"] = "one"
    """Each model on the "one" device above, or spread over all there are ("auto")."""
    attention: Attention = "auto"
    """Implementation of attention; "auto" leaves it to transformers."""
    quantization: Quantization = "none"
    """Keep linear layers in 4 ("nf4") or 8 bits ("int8"), by bitsandbytes."""
    double_quant: bool = False
    """With "nf4": quantise the scales too."""

    def __post_init__(self) -> None:
        self.team()

    def team(self) -> TeamConfig:
        """Return the settings of the team; ValueError if they do not go together."""
        return TeamConfig(tuning="none", **asdict(self))


@dataclass(frozen=True)
class Answering(Sampling):
    """Sampling of answers."""

    max_new_tokens: int = 0
    """Limit per message, the EOS included; 0 takes 32 for built-in tasks and 300 elsewhere."""
    temperature: float = 1.4
    """Paper: 1.3 to 1.5."""

    def __post_init__(self) -> None:
        self.sampling("")

    def sampling(self, task: str) -> Sampling:
        """Return the settings for a task; ValueError if one is out of range."""
        limit = self.max_new_tokens or (32 if task in BUILT_IN else 300)
        return Sampling(**asdict(self) | {"max_new_tokens": limit})
