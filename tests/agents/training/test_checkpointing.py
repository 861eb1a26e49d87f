"""Checkpoints of training are read back; one that holds what no run saves changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import load_team, shared_tokenizer, stir
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from maporl_agents.commands import export
from maporl_agents.config import GameConfig, PPOConfig, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.sources import weight_files
from maporl_agents.models.team import Team
from maporl_agents.records import checkpoint_folder, questions_record
from maporl_agents.records.storage import CheckpointError
from maporl_agents.training.checkpointing import load_checkpoint, save_checkpoint
from maporl_agents.training.experiment import read_config
from maporl_agents.update.optimiser import PPOLearner

PPO = PPOConfig(warmup_steps=0, reward_scale=True, kl_target=0.1)
SHAPE: dict[str, Any] = {
    "vocab_size": len(shared_tokenizer(False)),
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def learner_of(team: Team) -> PPOLearner:
    return PPOLearner(team, PPO, steps=10)


def stepped(learner: PPOLearner) -> PPOLearner:
    """Give every parameter a moment."""
    named = (*learner.team.trainable().values(), *learner.team.trainable_critics().values())
    for parameter in (p for one in named for p in one.values()):
        parameter.grad = torch.full_like(parameter, 0.01)
    learner.apply_gradients()
    learner.schedule.step()
    return learner


def state_of(learner: PPOLearner) -> dict[str, Any]:
    """Return all that a checkpoint restores, to be compared."""
    tensors, state = checkpoint_folder.optimizer_state(learner.optimizer, learner.parameter_names())
    tensors |= {name: p.detach().clone() for p, name in learner.parameter_names().items()}
    rest = {"state": state, "schedule": learner.schedule.state_dict(), "c": learner.controls()}
    return {"tensors": {n: t.tolist() for n, t in tensors.items()}, "rest": rest}


# --- Families whose files are not their parameters ------------------------------------------


def neox() -> PreTrainedModel:
    """The output head has another name in the files."""
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, max_position_embeddings=64))


def mixtral() -> PreTrainedModel:
    """Experts are one tensor in memory and apart in the files."""
    return MixtralForCausalLM(MixtralConfig(**SHAPE, num_key_value_heads=2, num_local_experts=2))


def full_team(folder: Path, model: PreTrainedModel, **settings: Any) -> Team:
    model.save_pretrained(folder)
    shared_tokenizer(False).save_pretrained(folder)
    config = TeamConfig(model=(str(folder),), tuning="full", device="cpu", **settings)
    return make_team(config, num_agents=1, num_turns=1, seed=0)


@pytest.mark.parametrize("make", [neox, mixtral])
def test_what_is_saved_is_read_back(tmp_path: Path, make: Callable[[], PreTrainedModel]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = stepped(learner_of(full_team(tmp_path / "model", make())))
    saved = save_checkpoint(tmp_path, 1, learner)
    other = learner_of(full_team(tmp_path / "again", make()))
    assert load_checkpoint(tmp_path, other) == 1
    assert state_of(other) == state_of(learner)

    folder = tmp_path / "exported" / "agent_0"
    folder.parent.mkdir()
    export.copy_model(saved / "policies" / "agent_0", folder)
    assert not (folder / weight_files.TRAINED).exists()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        own = learner.team.bases[0].model(input_ids=ids).logits
    torch.testing.assert_close(plain, own)


def test_models_whose_files_are_their_parameters_are_written_once(
    checkpoint, tmp_path: Path
) -> None:
    team = load_team(checkpoint("qwen2"), num_agents=1, num_turns=1)
    saved = save_checkpoint(tmp_path, 1, learner_of(team))
    assert not (saved / "policies" / "agent_0" / weight_files.TRAINED).exists()


def test_generation_settings_are_kept_as_they_are(checkpoint, tmp_path: Path) -> None:
    """A temperature without sampling, as Llama 2's, which transformers does not like to write."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama"), folder)
    given = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(given))
    config = TeamConfig(model=(str(folder),), tuning="full", device="cpu")
    team = make_team(config, num_agents=1, num_turns=1, seed=0)
    team.bases[0].model.generation_config.max_length = 77
    team.save(tmp_path)
    written = tmp_path / "policies" / "agent_0"
    kept = json.loads((written / "generation_config.json").read_text())
    assert given.items() <= kept.items()
    assert AutoModelForCausalLM.from_pretrained(written).generation_config.temperature == 0.9


def test_a_model_that_cannot_be_written_is_said_in_a_sentence(
    checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = load_team(checkpoint("llama"), num_agents=1, num_turns=1)

    def refuse(*_: Any) -> None:
        raise RuntimeError("tensors share memory\nand more")

    monkeypatch.setattr(team.bases[0].model, "save_pretrained", refuse)
    with pytest.raises(CheckpointError, match=r"cannot write a Llama.*\(tensors share memory\)"):
        save_checkpoint(tmp_path, 1, learner_of(team))


def test_what_cannot_be_read_back_is_not_saved(
    checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = load_team(checkpoint("llama"), num_agents=1, num_turns=1)
    learner = learner_of(team)
    save_checkpoint(tmp_path, 1, learner)
    stir(team)
    write = team.save

    def lose(folder: Path) -> None:
        write(folder)
        (path,) = (folder / "policies" / "agent_0").glob("*.safetensors")
        found = load_file(path)
        save_file({name: torch.zeros_like(t) for name, t in found.items()}, path)

    monkeypatch.setattr(team, "save", lose)
    with pytest.raises(CheckpointError, match=r"Nothing was saved .* cannot be read back: its wei"):
        save_checkpoint(tmp_path, 2, learner)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step*")] == ["step-000001"]


# --- Forged and damaged checkpoints with valid sums -----------------------------------------


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PPOLearner]:
    """A run of two agents with adapters, one step old."""
    folder = tmp_path_factory.mktemp("run")
    learner = learner_of(load_team(checkpoint("llama"), num_turns=1, tuning="lora"))
    stir(learner.team)
    save_checkpoint(folder, 1, stepped(learner))
    return folder, learner


def edit_json(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "optimizer.json"
        state = json.loads(path.read_text())
        made = change(state)
        path.write_text(json.dumps(state if made is None else made))

    return edit


def edited_copy(saved: Path, folder: Path, edit: Callable[[Path], None]) -> Path:
    """Copy the checkpoint of a run, edit the copy, write its manifest anew; return the copy."""
    copy = folder / "checkpoints" / "step-000001"
    shutil.copytree(saved / "checkpoints" / "step-000001", copy)
    edit(copy)
    (copy / checkpoint_folder.MANIFEST).unlink()
    checkpoint_folder._seal(copy, 1)
    return copy


def edit_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Any:
    def edit(folder: Path) -> None:
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name)

    return edit


def first_entry(state: Any) -> Any:
    return next(iter(state["optimizer"]["parameters"].values()))


def first_moment(kind: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        found[next(name for name in found if name.endswith(f"/{kind}"))].fill_(value)

    return change


def swap(folder: Path) -> None:
    one, two = (folder / "policies" / name for name in ("agent_0", "agent_1"))
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)


def whole(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda found: found.update({n: torch.full_like(t, value) for n, t in found.items()})


def replace_text(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


ADAPTER = "policies/agent_1/adapter_model.safetensors"
MOMENTS = "optimizer.safetensors"
FORGED: dict[str, Callable[[Path], None]] = {
    "swapped agents": swap,
    "weights not a number": edit_tensors(ADAPTER, whole(torch.nan)),
    "critics infinite": edit_tensors("critics.safetensors", whole(torch.inf)),
    "other weights": edit_tensors(ADAPTER, whole(0.5)),
    "whole numbers": edit_tensors(
        ADAPTER, lambda found: found.update({n: t.int() for n, t in found.items()})
    ),
    "weights cut": replace_text(ADAPTER, b"\x10\0\0\0\0\0\0\0{}"),
    "weights no safetensors": replace_text(ADAPTER, b"not at all"),
    "weights empty": replace_text(ADAPTER, b""),
    "critics gone": lambda folder: (folder / "critics.safetensors").unlink(),
    "moments gone": lambda folder: (folder / MOMENTS).unlink(),
    "moments not a number": edit_tensors(MOMENTS, first_moment("exp_avg", torch.nan)),
    "squares negative": edit_tensors(MOMENTS, first_moment("exp_avg_sq", -1.0)),
    "steps negative": edit_tensors(MOMENTS, first_moment("step", -3.0)),
    "no object": edit_json(lambda state: []),
    "null": edit_json(lambda state: {"optimizer": None, "schedule": None}),
    "no optimizer": edit_json(lambda state: state.pop("optimizer") and None),
    "no groups": edit_json(lambda state: state["optimizer"].pop("groups") and None),
    "a group of text": edit_json(lambda state: state["optimizer"]["groups"].append("x")),
    "a setting of parameters": edit_json(
        lambda state: state["optimizer"]["groups"][0]["settings"].update(params=[])
    ),
    "a parameter of no entry": edit_json(
        lambda state: state["optimizer"]["groups"][0]["parameters"].append("x")
    ),
    "an entry of numbers": edit_json(lambda state: first_entry(state).update(shape=3)),
    "a step as value": edit_json(lambda state: first_entry(state)["values"].update(lr="x")),
    "place negative": edit_json(lambda state: state["schedule"].update(last_epoch=-5)),
    "place no number": edit_json(lambda state: state["schedule"].update(last_epoch="1")),
    "place huge": edit_json(lambda state: state["schedule"].update(last_epoch=10**400)),
    "no schedule": edit_json(lambda state: state.update(schedule=[1])),
    "controls of text": edit_json(lambda state: state.update(controls="x")),
    "controls incomplete": edit_json(lambda state: state["controls"].pop("spread") and None),
    "controls negative": edit_json(lambda state: state["controls"].update(kl_coef=-1.0)),
    "controls true": edit_json(lambda state: state["controls"]["spread"].update(count=True)),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_checkpoint_is_refused_whole(
    run: tuple[Path, PPOLearner], tmp_path: Path, forgery: str
) -> None:
    """Its sums hold; one sentence says what does not, and the learner is as it was."""
    saved, learner = run
    folder = edited_copy(saved, tmp_path, FORGED[forgery])
    before = state_of(learner)
    with pytest.raises(CheckpointError, match=rf"^Checkpoint {folder} is damaged: .*\. Restore it"):
        load_checkpoint(tmp_path, learner)
    assert repr(state_of(learner)) == repr(before)


@pytest.mark.parametrize("config", [[], "x", None, 3])
def test_settings_that_are_none_are_refused(tmp_path: Path, config: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not hold the settings of a run"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"ppo": 3}, "ppo is a group of settings"),
        ({"steps": "x"}, "steps is 'x', but it must be a whole number"),
        ({"ppo": {"learning_rate": "fast"}}, r"ppo\.learning_rate is 'fast'"),
    ],
)
def test_settings_of_the_wrong_type_are_named(tmp_path: Path, config: Any, why: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json: {why}"):
        read_config(tmp_path)


@pytest.mark.parametrize("noted", [[], None, {}, {"training": 3}])
def test_a_note_of_questions_that_is_none_is_refused(tmp_path: Path, noted: Any) -> None:
    (tmp_path / questions_record.FILE).write_text(json.dumps(noted))
    with pytest.raises(CheckpointError, match="does not say what the training questions were"):
        questions_record.changes(tmp_path, GameConfig(), {"training": []}, force=False)


def test_an_unknown_format_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        TeamConfig(dtype="int8")  # type: ignore[arg-type]


def test_a_schedule_cannot_bring_attributes_of_its_own(
    run: tuple[Path, PPOLearner], tmp_path: Path
) -> None:
    saved, learner = run
    edited = edit_json(lambda state: state["schedule"].update(optimizer=1, step=2, base_lrs=[9]))
    edited_copy(saved, tmp_path, edited)
    before = repr(state_of(learner))
    assert load_checkpoint(tmp_path, learner) == 1
    assert repr(state_of(learner)) == before
    assert learner.schedule.optimizer is learner.optimizer


def test_checkpoints_of_earlier_versions_are_read(
    run: tuple[Path, PPOLearner], tmp_path: Path
) -> None:
    """They hold neither controls nor the sum of all weights."""
    saved, learner = run
    edited = edit_json(lambda state: [state.pop(name) for name in ("controls", "weights")] and None)
    edited_copy(saved, tmp_path, edited)
    assert load_checkpoint(tmp_path, learner) == 1
