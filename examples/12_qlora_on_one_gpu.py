r"""QLoRA on one GPU: the recipe for a real model, rehearsed on a CPU with a miniature of it.

    python examples/12_qlora_on_one_gpu.py       # a minute; no GPU, no download
    maporl plan  --recipe small-gpu --gib 12     # would it fit? reads no weights
    maporl train --recipe small-gpu              # Qwen2.5-0.5B on GSM8K, on a GPU

You learn: one 4-bit base serves all agents, and each learns an adapter of a few megabytes. The
rehearsal is the recipe's settings and code with a random model: what that writes is noise.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from maporl_agents.commands.export import export
from maporl_agents.recipes import recipe
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment

QUESTION = '{"question": "Mia has 4 pens and buys 3. How many?", "answer": "4 + 3 = 7 #### 7"}\n'
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def miniature(folder: Path) -> str:
    """Save a random Qwen2 of two layers and a tokenizer of bytes, as a hub model is saved."""
    words = [PAD, START, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=PAD)
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(**shape, **heads, vocab_size=len(words), pad_token_id=0, eos_token_id=2)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def rehearse(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(2 * QUESTION)
    real = recipe("small-gpu")
    print(f"the recipe's team: {real.team}\n")
    config = replace(
        real,
        steps=1,
        questions_per_step=2,
        game=replace(real.game, data=str(folder)),
        team=replace(real.team, device="cpu", model=(miniature(folder / "model"),)),
        sampling=replace(real.sampling, max_new_tokens=4),
        eval=replace(real.eval, questions=2),
    )
    experiment.run(config, folder / "run", Console(quiet=True))
    [base] = experiment.load_team(folder / "run")[1].bases
    packed = sum(p.numel() for p in base.model.parameters() if p.dtype == torch.uint8)
    print(f"one base for 2 agents: {2 * packed:,} weights in {packed:,} bytes")
    for step in read_metrics(folder / "run"):
        print(f"step {step['step']}: KL to the base {step['kl']:.4f}, {step['updates']} updates")
    for adapter in export(folder / "run", folder / "adapters"):
        size = sum(file.stat().st_size for file in adapter.glob("*.safetensors"))
        print(f"adapters/{adapter.name}: {size:,} bytes, a folder for peft.PeftModel")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rehearse(Path(folder))
