"""What can be wrong with a checkpoint, and the one sentence that says so."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import load_team, make_tokenizer
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from maporl_agents.commands.export import _merge
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import load_model, make_team
from maporl_agents.models.roster import model_names
from maporl_agents.tiny import checkpoint as tiny_checkpoint
from maporl_env.user_functions import name_object

CPU = TeamConfig(device="cpu")


@pytest.fixture
def folder(checkpoint, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))


def refused(folder: Path | str, match: str, config: TeamConfig = CPU) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_model(str(folder), config)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(folder), "")) < 300  # the path may be long


@pytest.mark.parametrize("given", [False, True])
def test_plain_prompts_are_the_text_of_the_debate_alone(checkpoint, given: bool) -> None:
    """Of a model by name and of one that is handed over, whose own tokenizer stays as it is."""
    folder = str(checkpoint("llama", templated=True))
    model, chat = load_model(folder, CPU)
    pair = (model, chat.tokenizer)
    name = name_object(pair, "model") if given else folder
    plain = load_model(name, replace(CPU, prompts="plain"))[1]
    view = (("user", "how much ?"), ("own", "5"), ("user", " and now ?"))
    ids = plain.prompt_ids(view)
    assert plain.tokenizer.decode(ids) == "how much ?5 and now ?"
    assert chat.tokenizer.chat_template is not None
    assert len(chat.prompt_ids(view)) > len(ids)
    assert plain.stop_ids == {plain.tokenizer.eos_token_id}


FULL = """
import sys
from maporl_agents.config import TeamConfig
from maporl_agents.training import experiment
experiment.make_team(TeamConfig(device="cpu"), num_agents=2, num_turns=1, seed=0)
print(sorted({"peft", "bitsandbytes", "matplotlib", "tensorboard"} & set(sys.modules)))
"""


@pytest.mark.thorough
def test_a_team_without_adapters_does_not_import_what_adapters_need() -> None:
    """Together with what it brings, peft takes as long to import as torch."""
    done = subprocess.run(
        [sys.executable, "-c", FULL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "[]\n", done.stderr


OFFLINE = """
import sys
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import load_model
model, chat = load_model("somebody/miniature", TeamConfig(device="cpu"))
print(model.num_parameters(), chat.decode(chat.encode("how much")))
"""


@pytest.mark.thorough
def test_a_hub_name_is_found_in_the_cache_without_a_network(checkpoint, tmp_path: Path) -> None:
    """Laid out as the hub's client does after a download: refs, snapshots, blobs."""
    source = checkpoint("llama", templated=True)
    place = tmp_path / "hub" / "models--somebody--miniature"
    for folder in ("refs", "blobs", "snapshots/0123abcd"):
        (place / folder).mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    for number, file in enumerate(sorted(source.iterdir())):
        shutil.copy(file, place / "blobs" / str(number))
        (place / "snapshots" / "0123abcd" / file.name).symlink_to(f"../../blobs/{number}")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    expected, _ = load_model(str(source), CPU)
    assert done.stdout == f"{expected.num_parameters()} how much\n", done.stderr


class TestRefused:
    def test_without_a_tokenizer(self, folder: Path) -> None:
        for file in folder.glob("tokenizer*"):
            file.unlink()
        refused(folder, r"has no tokenizer.*save one beside the model")

    def test_without_a_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        refused(folder, r"no config\.json.*save_pretrained")

    def test_without_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        refused(folder, "cannot load the model")

    @pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_damaged(self, folder: Path, file: str) -> None:
        (folder / file).write_bytes((folder / file).read_bytes()[:100])
        refused(folder, "cannot load the (model|tokenizer)")

    def test_of_an_unknown_kind(self, folder: Path) -> None:
        edit(folder, model_type="sundial")
        refused(folder, "cannot load the (model|tokenizer).*sundial")

    def test_with_some_weights_missing(self, folder: Path) -> None:
        """Not filled in at random (failure B6)."""
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        refused(folder, r"incomplete: 1 are missing \(model\.layers\.1\.mlp\.up_proj\.weight\)")

    def test_with_weights_of_another_shape(self, folder: Path) -> None:
        edit(folder, intermediate_size=96)
        refused(folder, "cannot load the model")

    @pytest.mark.parametrize("read", ["load", "export"])
    def test_with_pickled_weights_alone(self, folder: Path, read: str) -> None:
        """A pickle runs what its author likes as soon as it is opened."""
        (folder / "model.safetensors").unlink()
        mark = folder / "mark"
        with (folder / "pytorch_model.bin").open("wb") as file:
            pickle.dump(Bomb(mark), file)
        if read == "load":
            refused(folder, r"are a pickle \(pytorch_model\.bin\).*save them as safetensors")
        else:
            adapter = folder / "adapter"
            LoraConfig(base_model_name_or_path=str(folder)).save_pretrained(str(adapter))
            with pytest.raises(ValueError, match="are a pickle"):
                _merge(adapter, folder / "out", "float32")
        assert not mark.exists()
        pickle.loads((folder / "pytorch_model.bin").read_bytes())
        assert mark.exists()  # it would have gone off

    def test_pickled_weights_beside_others_stay_closed(self, folder: Path) -> None:
        mark = folder / "mark"
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
        load_model(str(folder), CPU)
        assert not mark.exists()

    def test_with_a_larger_tokenizer(self, folder: Path) -> None:
        """Before any weight is read: there are none."""
        tokenizer = make_tokenizer()
        tokenizer.add_tokens([f"word{i}" for i in range(9)])
        tokenizer.save_pretrained(folder)
        (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"tokenizer .* knows \d+ tokens.*resize"):
            load_team(folder, num_turns=1)

    @pytest.mark.parametrize("name", ["no such model!", "nobody/no such model", "./nowhere/at/all"])
    def test_unknown_names(self, name: str) -> None:
        refused(name, "cannot load the (model|tokenizer) .*" + name[-5:])

    def test_unknown_devices(self, folder: Path) -> None:
        refused(folder, "'gpu'.*choose auto, cpu, or cuda", TeamConfig(device="gpu"))
        if not torch.cuda.is_available():
            refused(folder, "'cuda'.*choose auto, cpu", TeamConfig(device="cuda"))


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("known", [True, False], ids=["known type", "own type"])
def test_code_in_the_folder_is_never_run(folder: Path, known: bool, monkeypatch) -> None:
    """Neither asked for on the terminal nor imported."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ran = folder / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    for file in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / file).read_text())
        settings["auto_map"] = {
            "AutoConfig": "modeling_own.Own",
            "AutoModelForCausalLM": "modeling_own.Own",
            "AutoTokenizer": ["modeling_own.Own", None],
        }
        (folder / file).write_text(json.dumps(settings))
    if known:
        load_model(str(folder), CPU)  # with the library's own code
    else:
        edit(folder, model_type="own")
        refused(folder, "cannot load the (model|tokenizer)")
    assert not ran.exists()


class TestTeams:
    def test_one_model_for_all_or_one_each(self) -> None:
        assert model_names(TeamConfig(model=("a",)), 3) == ["a", "a", "a"]
        assert model_names(TeamConfig(model=("a", "b")), 2) == ["a", "b"]
        tiny = model_names(TeamConfig(), 3)
        assert tiny == [str(tiny_checkpoint(seat)) for seat in (0, 1, 0)]
        with pytest.raises(ValueError, match="2 models for 3 agents"):
            model_names(TeamConfig(model=("a", "b")), 3)

    def test_different_models_with_their_own_tokenizers(self, checkpoint) -> None:
        folders = [checkpoint("llama", templated=True), checkpoint("gpt2")]
        team = load_team(folders, tuning="lora")
        assert [type(base.model).__name__ for base in team.bases] == [
            "LlamaForCausalLM",
            "GPT2LMHeadModel",
        ]
        assert [base.policies for base in team.bases] == [("agent_0",), ("agent_1",)]
        assert team.bases[0].chat.tokenizer.chat_template
        assert not team.bases[1].chat.tokenizer.chat_template

    def test_one_policy_needs_one_model(self, checkpoint) -> None:
        folders = [checkpoint("llama"), checkpoint("gpt2")]
        with pytest.raises(ValueError, match="sharing='one' needs one model"):
            load_team(folders, sharing="one")

    def test_agents_of_one_base_share_it_in_memory(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_agents=4, tuning="lora")
        assert len(team.bases) == 1
        assert len(load_team(checkpoint("llama"), num_agents=4).bases) == 4

    def test_for_evaluation_only_nothing_is_copied_or_trained(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_agents=4, tuning="none")
        [base] = team.bases
        assert base.reference is base.model
        assert not any(team.trainable().values())
        assert not any(p.requires_grad for p in base.model.parameters())

    @pytest.mark.parametrize("tuning", ["full", "lora", "none"])
    def test_the_global_random_state_is_not_touched(self, checkpoint, tuning: str) -> None:
        config = TeamConfig(model=(str(checkpoint("gpt2")),), tuning=tuning, device="cpu")  # type: ignore[arg-type]
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        make_team(config, num_agents=2, num_turns=2, seed=3)
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_the_seed_names_adapters_and_critics(self, checkpoint) -> None:
        teams = [load_team(checkpoint("llama"), tuning="lora", seed=seed) for seed in (3, 3, 4)]
        weights = [
            torch.cat([p.flatten() for named in team.trainable().values() for p in named.values()])
            for team in teams
        ]
        critics = [torch.cat([p.flatten() for p in team.critics.parameters()]) for team in teams]
        for found in (weights, critics):
            assert torch.equal(found[0], found[1])
            assert not torch.equal(found[0], found[2])

    def test_stop_tokens_of_the_generation_config_are_known(self, folder: Path) -> None:
        path = folder / "generation_config.json"
        settings = json.loads(path.read_text()) | {"eos_token_id": [0, 17]}
        path.write_text(json.dumps(settings))
        assert load_model(str(folder), CPU)[1].stop_ids == {0, 17}
