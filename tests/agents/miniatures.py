"""Real checkpoints in miniature: random two-layer models with tokenizers, saved and loaded back.

Every model goes through `save_pretrained` and the package's own `loading.load_model`, as a user's
would. Widths are multiples of 32. `conftest.py` puts this folder on the path.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.training import ahead
from maporl_agents.types import Completion, Rollout, StopReason, TokenBatch, TokenIds
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.types import Message, Question, Transcript

Checkpoint = Callable[..., Path]
"""Returns the folder of a miniature; the fixture `checkpoint`."""
Native = Callable[..., Path]

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {"head_dim": 32}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 32, "sliding_window": 8}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"head_dim": 32, "sliding_window": 8}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 8}),
    "grouped": (Qwen2Config, Qwen2ForCausalLM, {"num_attention_heads": 4}),
}
"""Rotary families: configuration, model, and what is particular. Besides them: "gpt2".

"grouped": heads of queries share those of keys and values, two by two, as in all large models.
"""

SENTENCES = (
    "Question: how much is two and three ? Put your final answer in \\boxed{}.",
    "Answers of the other agents in turn 1: the answer is \\boxed{ 5 } because 2 + 3 = 5 .",
    "The question again: how many apples are left ? Your answer in turn 2: hello world .",
    "Think about your answer once more. One two three four five six seven eight nine ten.",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's: every message closed by <|im_end|>, which is also what ends an answer."""


def make_tokenizer(
    *, template: str | None = None, corpus: Iterable[str] = SENTENCES, size: int = 400
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE.

    With a chat template: <|im_end|> ends a message, <|endoftext|> pads, <think> is an added token
    that is not special. Without one: <|endoftext|> is both EOS and padding.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        if template
        else ["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>" if template else "<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    if template:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
        tokenizer.add_tokens(["<think>"])
        tokenizer.chat_template = template
    return tokenizer


def make_model(
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int = 0,
    width: int = 32,
    padded_vocabulary: int = 0,
    scale: float = 0.25,
) -> PreTrainedModel:
    """Return a random two-layer model; its weights come from a generator of its own.

    `scale` is the spread of the weights: large enough that distributions are far from uniform.
    """
    vocab_size = len(tokenizer) + padded_vocabulary
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        if family == "gpt2":
            model: PreTrainedModel = GPT2LMHeadModel(
                GPT2Config(vocab_size=vocab_size, n_embd=width, n_layer=2, n_head=2, **ids)
            )
        else:
            configuration, architecture, particular = FAMILIES[family]
            shape = {
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 2048,
            }
            settings = {**shape, **ids, **particular}
            model = architecture(configuration(vocab_size=vocab_size, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, scale, generator=generator)
    return model


def save_miniature(
    folder: Path,
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    **shape: int,
) -> Path:
    """Write a model (arguments of `make_model`) and its tokenizer; return the folder."""
    make_model(family, tokenizer, **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@lru_cache
def shared_tokenizer(templated: bool) -> PreTrainedTokenizerFast:
    """Return the small tokenizer, trained once."""
    return make_tokenizer(template=CHAT_TEMPLATE if templated else None)


def load_team(
    folders: Path | Sequence[Path],
    *,
    num_agents: int = 2,
    num_turns: int = 3,
    double: bool = False,
    seed: int = 0,
    **settings: object,
) -> Team:
    """Return a team of saved miniatures on the CPU; `settings` are those of `TeamConfig`.

    Equal arguments load once and copy afterwards. What is about loading itself, or about
    checkpoints that change, calls `make_team`.
    """
    given = [folders] if isinstance(folders, Path) else folders
    config = TeamConfig(model=tuple(map(str, given)), device="cpu", **settings)  # type: ignore[arg-type]
    team = copy.deepcopy(_loaded(config, num_agents, num_turns, seed))
    if double:
        make_double(team)
    return team


@lru_cache
def _loaded(config: TeamConfig, num_agents: int, num_turns: int, seed: int) -> Team:
    return make_team(config, num_agents=num_agents, num_turns=num_turns, seed=seed)


def make_double(team: Team) -> None:
    """Turn every weight of a team into float64."""
    for base in team.bases:
        base.model.double()
        if hasattr(base, "reference"):
            base.reference.double()
    team.critics.double()


def stir(team: Team, seed: int = 1, scale: float = 0.1) -> None:
    """Move every trained weight and critic away from where it began, as training would."""
    generator = torch.Generator().manual_seed(seed)
    owned = (*team.trainable().values(), *team.trainable_critics().values())
    with torch.no_grad():
        for parameter in (parameter for named in owned for parameter in named.values()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(scale * noise)


def weights(team: Team) -> dict[str, torch.Tensor]:
    """Return a copy of the trained weights of every policy, as one vector."""
    return {
        policy: torch.cat([p.detach().flatten().clone() for p in named.values()])
        for policy, named in team.trainable().items()
    }


def completion(
    ids: TokenIds, logprobs: Sequence[float] | None = None, text: str = ""
) -> Completion:
    """Return a completion that ended for want of room."""
    return Completion(ids, tuple(logprobs or [-1.0] * len(ids)), text, StopReason.LENGTH)


def make_rollout(
    team: Team,
    prompts: Sequence[TokenIds],
    ids: Sequence[TokenIds],
    *,
    rewards: np.ndarray,
    scored: np.ndarray | None = None,
) -> Rollout:
    """Return a rollout of hand-made tokens; prompts and ids in the order of the messages."""
    num_turns, num_agents = rewards.shape
    agents = tuple(f"agent_{seat}" for seat in range(num_agents))
    places = [(turn, seat) for turn in range(num_turns) for seat in range(num_agents)]
    question = Question("q", "how much ?", "5", "number")
    messages = tuple(Message(turn, agents[seat], "", 0.0) for turn, seat in places)
    return Rollout(
        transcript=Transcript(question, agents, messages),
        prompts=tuple(prompts),
        completions=tuple(completion(row) for row in ids),
        policies=tuple(team.policy(seat, turn) for turn, seat in places),
        rewards=rewards,
        scored=np.ones(rewards.shape, bool) if scored is None else scored,
    )


@contextmanager
def cut_in_the_second_step() -> Iterator[None]:
    """Let the run of a joint scheme that is started here die in its second step."""
    draw = ahead.questions_of_step

    def draw_once(questions: Sequence[Question], step: int, *rest: int) -> Any:
        if step:
            raise OSError("cut")
        return draw(questions, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "questions_of_step", draw_once)
        with pytest.raises(OSError, match="cut"):
            yield


def make_transcript(
    texts: Sequence[Sequence[str]],
    *,
    answer: str = "5",
    scores: Sequence[Sequence[float | None]] | None = None,
) -> Transcript:
    """Return a finished debate; `texts[t][a]` is what agent a wrote in turn t."""
    agents = tuple(f"agent_{seat}" for seat in range(len(texts[0])))
    return Transcript(
        Question("q", "how much ?", answer, "number"),
        agents,
        tuple(
            Message(turn, agents[seat], text, None if scores is None else scores[turn][seat])
            for turn, row in enumerate(texts)
            for seat, text in enumerate(row)
        ),
    )


def tables_and_gradients(
    team: Team, batch: TokenBatch
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Return log-probabilities, values, entropies and reference log-probabilities of a batch.

    Also returns the gradients of all that is trained, by a weighted sum of the first two.
    """
    now = score_tokens(team, batch, temperature=0.8, with_values=True, with_entropy=True)
    with torch.no_grad():
        frozen = score_tokens(team, batch, temperature=0.8, reference=True)
    chances = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    ((now.logprobs + 0.3 * now.values) * chances).sum().backward()
    grads = {}
    for owner, named in (team.trainable() | team.trainable_critics()).items():
        for name, weight in named.items():
            if weight.grad is not None:
                grads[f"{owner}/{name}"] = weight.grad
            weight.grad = None
    tables = [now.logprobs, now.values, now.entropy, frozen.logprobs]
    return [table.detach() for table in tables], grads
