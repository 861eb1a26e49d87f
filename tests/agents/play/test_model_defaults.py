"""Truncation from the generation settings of models: taken where a run leaves it open, and said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import SMALL

from maporl_agents.bridges.bench_players import model_sampling
from maporl_agents.config import Sampling, TeamConfig, Truncation
from maporl_agents.play.model_defaults import (
    generation_settings,
    kept_open,
    own_truncation,
    with_model_defaults,
)
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume


def model(folder: Path, **said: object) -> str:
    """A folder that holds no more of a model than its generation settings."""
    folder.mkdir()
    (folder / "generation_config.json").write_text(json.dumps(said))
    return str(folder)


def test_what_a_model_says_is_taken_and_told(tmp_path: Path) -> None:
    """As in the files of Qwen3."""
    name = model(tmp_path / "m", do_sample=True, temperature=0.6, top_k=20, top_p=0.95)
    found, told = with_model_defaults(Sampling(), [name, name])
    assert found.truncation == (20, 0.95, 0)
    assert found.temperature == 0.6
    assert told.startswith("drawing at temperature 0.6, as the generation settings of ")
    assert "; drawing with top_k 20, top_p 0.95, as the generation settings of " in told
    assert name in told
    assert "--sampling.top-k, --sampling.top-p set another value" in told
    assert model_sampling(name).truncation == found.truncation


def truncation_of(name: str) -> Truncation:
    return own_truncation(name, generation_settings(name))


def test_what_a_run_says_goes_first(tmp_path: Path) -> None:
    name = model(tmp_path / "m", do_sample=True, top_k=20, top_p=0.95)
    found, told = with_model_defaults(Sampling(top_k=0), [name])
    assert found.truncation == (0, 0.95, 0)
    assert "top_k" not in told
    everything = Sampling(top_k=0, top_p=1.0, min_p=0.0)
    assert with_model_defaults(everything, [name]) == (everything, "")


@pytest.mark.parametrize(
    "said",
    [{}, {"do_sample": False, "top_k": 20}, {"top_p": 0.9}, {"do_sample": True, "top_k": None}],
)
def test_settings_that_generate_would_not_read_are_not_taken(
    tmp_path: Path, said: dict[str, object]
) -> None:
    assert truncation_of(model(tmp_path / "m", **said)) == Truncation()
    (tmp_path / "bare").mkdir()
    assert truncation_of(str(tmp_path / "bare")) == Truncation()


def test_built_in_models_keep_all_tokens() -> None:
    assert with_model_defaults(Sampling(), ["tiny"]) == (Sampling(), "")


def test_models_that_differ_leave_out_nothing(tmp_path: Path) -> None:
    names = [model(tmp_path / "m", do_sample=True, top_k=20), "tiny"]
    found, told = with_model_defaults(Sampling(), names)
    assert found.truncation is None
    assert f"{names[0]}: top_k 20; tiny: top_k 0" in told
    assert "none is left out: set --sampling.top-k" in told


@pytest.mark.parametrize("said", [{"top_p": 3}, {"top_k": "many"}, {"min_p": [1]}])
def test_a_senseless_value_is_named_with_its_file(tmp_path: Path, said: dict[str, object]) -> None:
    name = model(tmp_path / "m", do_sample=True, **said)
    with pytest.raises(ValueError, match=r"generation_config.json of .*repair it"):
        truncation_of(name)
    Path(name, "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        truncation_of(name)


def test_a_run_that_goes_on_keeps_what_it_began_with() -> None:
    assert kept_open(Sampling(top_k=3), Sampling(top_k=9, top_p=0.5)) == Sampling(
        top_k=3, top_p=0.5
    )


@pytest.mark.thorough
def test_a_run_says_and_saves_them_and_goes_on(
    checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama"), folder)
    said = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps(said | {"do_sample": True, "top_k": 7})
    )
    screen = Console(file=io.StringIO(), record=True, width=200)
    config = replace(
        SMALL, steps=1, sampling=Sampling(max_new_tokens=3), team=TeamConfig(model=(str(folder),))
    )
    experiment.run(config, tmp_path / "run", screen)
    assert "drawing with top_k 7" in screen.export_text()
    assert experiment.read_config(tmp_path / "run").sampling.truncation == (7, 1, 0)
    resume(tmp_path / "run", screen, replace(config, steps=2), force=True)
    assert experiment.read_config(tmp_path / "run").sampling.truncation == (7, 1, 0)


def test_the_temperature_of_a_model_is_taken_where_it_is_open(tmp_path: Path) -> None:
    warm = model(tmp_path / "warm", do_sample=True, temperature=0.2)
    other = model(tmp_path / "other", do_sample=True, temperature=0.7)
    greedy = model(tmp_path / "greedy", do_sample=False, temperature=0.2)
    found, told = with_model_defaults(Sampling(), [warm, warm])
    assert found.temperature == 0.2
    assert "--sampling.no-model-temperature keeps 1" in told
    for own in (Sampling(temperature=0.9), Sampling(model_temperature=False)):
        assert with_model_defaults(own, [warm]) == (own, "")
    assert with_model_defaults(Sampling(), [greedy]) == (Sampling(), "")
    assert with_model_defaults(Sampling(), ["tiny", "tiny"]) == (Sampling(), "")
    mixed, told = with_model_defaults(Sampling(), [warm, other])
    assert mixed.temperature == 1
    assert "differ in temperature" in told
    assert kept_open(Sampling(), found, [warm]).temperature == 0.2
    assert model_sampling(warm).temperature == 0.2


@pytest.mark.parametrize("heat", [0, -1, "warm", True])
def test_a_temperature_that_draws_nothing_names_the_file(tmp_path: Path, heat: object) -> None:
    name = model(tmp_path / "m", do_sample=True, temperature=heat)
    with pytest.raises(ValueError, match=r"generation_config\.json of .*temperature must be"):
        with_model_defaults(Sampling(), [name])
