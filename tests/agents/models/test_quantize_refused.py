"""Settings of quantised models that are refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from maporl_agents.config import TeamConfig
from maporl_agents.models import quantize
from maporl_agents.models.loading import load_model

pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")

KINDS = ("nf4", "int8")
Native = Callable[..., Path]


class TestRefused:
    """In one sentence, before anything is loaded: the model named here does not exist."""

    def refused(self, match: str, **settings: object) -> None:
        config = TeamConfig(model=("./nowhere",), tuning="lora", device="cpu", **settings)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=match) as caught:
            load_model("./nowhere", config)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", KINDS)
    def test_without_bitsandbytes(self, monkeypatch, kind: str) -> None:
        monkeypatch.setattr(quantize, "is_installed", lambda package: package != "bitsandbytes")
        self.refused(rf"'{kind}' needs bitsandbytes.*'maporl\[quant\]'", quantization=kind)

    def test_without_accelerate(self, monkeypatch) -> None:
        monkeypatch.setattr(quantize, "is_installed", lambda package: package != "accelerate")
        self.refused("'nf4' needs accelerate.*pip install accelerate", quantization="nf4")
        self.refused("device_map='auto' .*needs accelerate", device_map="auto")

    def test_flash_attention_on_a_cpu_or_in_full_precision(self) -> None:
        self.refused("runs on GPUs.*'cpu' in float32.*sdpa", attention="flash_attention_2")

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"quantization": "nf4"}, "freezes the weights.*tuning='lora'"),
            ({"quantization": "int8", "tuning": "full"}, "freezes the weights.*tuning='lora'"),
            ({"device_map": "auto"}, "needs tuning='lora' .or 'none' for a team that only plays"),
            ({"quantization": "fp4", "tuning": "lora"}, "unknown quantization 'fp4'.*nf4, int8"),
            ({"quantization": "int8", "tuning": "lora", "double_quant": True}, "'nf4'.*'int8'"),
            ({"attention": "flash"}, "unknown attention 'flash'.*sdpa"),
            ({"device_map": "all"}, "unknown device_map 'all'.*one, auto"),
        ],
    )
    def test_settings_that_do_not_go_together(self, settings, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            TeamConfig(**settings)

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"quantization": "nf4", "tuning": "lora"}, "quantised already"),
            ({"tuning": "full"}, "cannot be trained: choose tuning='lora'"),
        ],
    )
    def test_checkpoints_that_are_quantised_already(
        self, native: Native, tmp_path: Path, settings, match: str
    ) -> None:
        folder = Path(shutil.copytree(native("llama", 64), tmp_path / "model"))
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=match):
            load_model(str(folder), TeamConfig(device="cpu", **settings))
