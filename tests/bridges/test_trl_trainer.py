"""TRL's own GRPO trainer: our verifiers pay it, and it goes on with an adapter of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra trl")

import datasets
import torch
import trl
from miniatures import save_miniature, shared_tokenizer, stir
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents.commands.export import export
from maporl_agents.config import TeamConfig, TrainConfig
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment
from maporl_env.bridges.trl import reward_function, rows
from maporl_env.types import Question

QUESTIONS = [Question(str(i), f"how much is {i} and {i} ?", str(2 * i)) for i in range(4)]


def vowels(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """The share of vowels."""
    return [sum(map(text.count, "aeiou")) / max(len(text), 1) for text in responses]


def make_trainer(model: Any, tokenizer: Any, folder: Path, **options: Any) -> Any:
    arguments = trl.GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        beta=0.0,
        disable_tqdm=True,
        lr_scheduler_type="constant",
        seed=0,
        **options,
    )
    return trl.GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=[reward_function(vowels)],
        train_dataset=datasets.Dataset.from_list(rows(QUESTIONS)),
        processing_class=tokenizer,
    )


def paid(trainer: Any) -> list[float]:
    key = "rewards/vowels/mean"
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_miniature(tmp_path_factory.mktemp("base"), "llama", shared_tokenizer(True))


def test_its_trainer_learns_what_our_verifier_pays(base: Path, tmp_path: Path) -> None:
    """A random model writes vowels one time in a few; the rewards it logs are the verifier's."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng():  # TRL samples with the process-global generator
        trainer = make_trainer(
            model, AutoTokenizer.from_pretrained(base), tmp_path, max_steps=40, learning_rate=3e-3
        )
        trainer.train()
    rewards = paid(trainer)
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    print(f"\nTRL, GRPO: share of vowels {first:.3f} in steps 1-5, {last:.3f} in steps 36-40")
    assert len(rewards) == 40
    assert last > first + 0.2


def test_it_goes_on_with_an_exported_adapter(base: Path, tmp_path: Path) -> None:
    team = TeamConfig(model=(str(base),), tuning="lora", device="cpu")
    config = TrainConfig(team=team)
    _, learner = experiment.build(config)
    stir(learner.team)
    with RunLog.create(tmp_path / "run", config):
        experiment.save_checkpoint(tmp_path / "run", 1, learner)
    adapter = export(tmp_path / "run", tmp_path / "adapters")[0]

    model = AutoPeftModelForCausalLM.from_pretrained(adapter, is_trainable=True)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.random.fork_rng():
        trainer = make_trainer(
            model, AutoTokenizer.from_pretrained(adapter), tmp_path, max_steps=3, learning_rate=1e-2
        )
        trainer.train()
    assert len(paid(trainer)) == 3
    after = dict(trainer.model.named_parameters())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert all("lora" in name for name in moved)
