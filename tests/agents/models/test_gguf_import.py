"""GGUF files as plain folders: the same model and tokenizer, or one sentence and nothing left."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from made_ggufs import gguf, write_gguf
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_runs import maporl
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.sources import gguf_import
from maporl_agents.models.sources.gguf_import import import_gguf

TEXTS = (
    "Question: how much is two and three ? Put it in \\boxed{12}.",
    "<|im_start|>user\nHi<|im_end|>\n<think>  5\n\n1. x",
)


@pytest.fixture(scope="module")
def source(checkpoint) -> Path:
    """Return the folder of a miniature Llama with a chat template."""
    return checkpoint("llama", templated=True)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its GGUF."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "mini.gguf", source)


@torch.no_grad()
def logits_of(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder)(torch.arange(3, 23)[None]).logits


def refused(file: Path, to: Path, match: str) -> str:
    """Import a file that must be refused in one sentence, and look whether anything stayed.

    Returns the sentence.
    """
    before = sorted(to.parent.rglob("*"))
    with pytest.raises(ValueError, match=match) as caught:
        import_gguf(file, to)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert sorted(to.parent.rglob("*")) == before
    return str(caught.value)


def test_an_imported_model_is_the_original(source: Path, whole: Path, tmp_path: Path) -> None:
    made = import_gguf(whole, tmp_path / "out")
    assert (made.folder, made.warnings) == (tmp_path / "out", ())
    torch.testing.assert_close(logits_of(made.folder), logits_of(source), rtol=1e-5, atol=1e-5)
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (source, made.folder))
    assert [new.encode(text) for text in TEXTS] == [old.encode(text) for text in TEXTS]
    assert new.chat_template == old.chat_template
    assert (new.eos_token, new.pad_token) == (old.eos_token, old.pad_token)
    control = [
        {number for number, token in one.added_tokens_decoder.items() if token.special}
        for one in (new, old)
    ]
    assert control[0] == control[1] == {0, 1, 2}
    assert new.model_max_length == 2048
    noted = json.loads((made.folder / "gguf.json").read_text())
    assert (noted["file"], noted["dtype"]) == ("mini.gguf", "float32")
    assert noted["weights"] == dict(made.header.weights)
    assert list(made.header.weights) == ["F32"]
    settings = json.loads((made.folder / "config.json").read_text())
    assert "quantization_config" not in settings
    assert str(tmp_path) not in json.dumps(settings)


def test_an_imported_model_passes_the_check_on_loading(whole: Path, tmp_path: Path) -> None:
    made = import_gguf(whole, tmp_path / "out")
    config = TeamConfig(model=(str(made.folder),), tuning="none", device="cpu")
    make_team(config, num_agents=2, num_turns=1, seed=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantised_weights_are_expanded(source: Path, tmp_path: Path, dtype: str) -> None:
    file = write_gguf(tmp_path / "mini.gguf", source, quantised=True)
    made = import_gguf(file, tmp_path / "out", dtype)  # type: ignore[arg-type]
    assert list(made.header.weights) == ["Q8_0", "F32"]
    given = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    expanded = torch.from_numpy(gguf.dequantize(given.data, given.tensor_type))
    found = load_file(made.folder / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(found, expanded.to(getattr(torch, dtype)), rtol=0, atol=0)
    assert json.loads((made.folder / "config.json").read_text())["dtype"] == dtype


def test_digits_are_cut_off_where_the_file_says_so(source: Path, tmp_path: Path) -> None:
    """By itself, transformers cuts by GPT-2's rules what it does not know (5.20 and 5.23)."""
    file = write_gguf(tmp_path / "mini.gguf", source, rules="smollm")
    made = import_gguf(file, tmp_path / "out")
    new, old = (AutoTokenizer.from_pretrained(folder) for folder in (made.folder, source))
    by_rules = [
        [piece for piece, _ in one.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12\n\n3")]
        for one in (new, old)
    ]
    assert by_rules == [["a", "ĠĠ", "1", "2", "ĊĊ", "3"], ["a", "Ġ", "Ġ12", "Ċ", "Ċ", "3"]]
    assert made.warnings == ()


@pytest.mark.parametrize(("rules", "said"), [("sundial", "the rules 'sundial'"), ("", "no rules")])
def test_unknown_rules_are_warned_of(
    source: Path, tmp_path: Path, rules: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "mini.gguf", source, rules=rules)
    assert maporl("import", file, tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"warning: the file names {said} to cut text")
    assert lines[-1] == str(tmp_path / "out")


def test_the_file_is_the_one_that_was_named(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For transformers looks for the bare name in the current folder first, and at its ending."""
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_text("another")
    Path("elsewhere").mkdir()
    shutil.copy(whole, "elsewhere/weights.bin")
    import_gguf(Path("elsewhere/weights.bin"), Path("out"))
    torch.testing.assert_close(logits_of(Path("out")), logits_of(source), rtol=1e-5, atol=1e-5)


class TestRefused:
    @pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 and more", b"{}" * 50])
    def test_what_is_no_gguf(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.gguf").write_bytes(content)
        refused(tmp_path / "x.gguf", tmp_path / "out", "is no GGUF file: it does not begin with")

    def test_what_is_not_there_or_no_file(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert maporl("import", tmp_path / "none.gguf", tmp_path / "out") == 2
        assert maporl("import", tmp_path, tmp_path / "out") == 2
        none, folder = capsys.readouterr().err.splitlines()
        assert none == f"maporl: there is no file or folder {tmp_path / 'none.gguf'}"
        assert folder == f"maporl: {tmp_path} is a folder, but a file is needed"
        assert not any(tmp_path.iterdir())

    def test_an_unknown_kind(self, source: Path, tmp_path: Path) -> None:
        file = write_gguf(tmp_path / "mini.gguf", source, architecture="sundial")
        said = refused(file, tmp_path / "out", r"'sundial'.*[^.]; it reads .*llama, .*qwen2")
        assert not {"general", "tokenizer", "t5"} & set(said.partition("it reads ")[2].split(", "))

    def test_a_model_that_is_no_causal_one(self, source: Path, tmp_path: Path) -> None:
        file = write_gguf(tmp_path / "mini.gguf", source, architecture="t5")
        refused(file, tmp_path / "out", "is a 't5', which is no causal language model")

    def test_a_part_of_a_model(self, source: Path, tmp_path: Path) -> None:
        file = write_gguf(tmp_path / "mini.gguf", source, parts=3)
        refused(file, tmp_path / "out", "one of 3 parts of a model: join them first")

    @pytest.mark.parametrize(
        ("left_out", "match"),
        [
            ("tokenizer", "has no tokenizer"),
            ("eos", "EOS|names no token that ends a text"),
            ("blk.1.ffn_up.weight", r"1 weights are missing \(model\.layers\.1\.mlp\.up_proj"),
        ],
    )
    def test_what_lacks_a_part(
        self, source: Path, tmp_path: Path, left_out: str, match: str
    ) -> None:
        file = write_gguf(tmp_path / "mini.gguf", source, without=[left_out])
        refused(file, tmp_path / "out", match)

    @pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.6, 0.999])
    def test_a_file_that_was_cut_short(self, whole: Path, tmp_path: Path, share: float) -> None:
        content = whole.read_bytes()
        (tmp_path / "x.gguf").write_bytes(content[: int(len(content) * share)])
        refused(tmp_path / "x.gguf", tmp_path / "out", r"x\.gguf is damaged or cut short \(.+again")

    @pytest.mark.parametrize("place", [4, 8, 16, 24])
    def test_a_damaged_header(self, whole: Path, tmp_path: Path, place: int) -> None:
        """Version, number of tensors, number of settings, length of the first name."""
        content = bytearray(whole.read_bytes())
        content[place : place + 4] = b"\xff\xff\xff\x00"
        (tmp_path / "x.gguf").write_bytes(content)
        refused(tmp_path / "x.gguf", tmp_path / "out", r"x\.gguf is damaged or cut short")

    def test_weights_that_are_no_numbers(self, source: Path, tmp_path: Path) -> None:
        file = write_gguf(tmp_path / "mini.gguf", source, poison="output_norm.weight")
        refused(file, tmp_path / "out", r"damaged .*model\.norm\.weight holds numbers that are not")

    def test_a_folder_that_holds_something(self, whole: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        refused(whole, tmp_path / "out", "is not an empty folder.*nothing is replaced")
        refused(whole, tmp_path / "out" / "mine.txt", "is not an empty folder")

    def test_where_the_library_is_missing(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: None if name == "gguf" else known(name, *more),
        )
        refused(whole, tmp_path / "out", r"not installed: pip install 'maporl\[gguf\]'")

    def test_an_unknown_dtype(self, whole: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
            import_gguf(whole, tmp_path / "out", "int4")  # type: ignore[arg-type]

    def test_a_disk_that_is_too_small(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(gguf_import.shutil, "disk_usage", lambda folder: usage)
        refused(whole, tmp_path / "out", r"out needs 0 MB for weights in float32.*has 0 MB left")

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            SafetensorError("I/O error: No space left on device (os error 28)"),
        ],
    )
    def test_a_disk_that_fills_up(
        self, whole: Path, tmp_path: Path, error: Exception, monkeypatch, capsys
    ) -> None:
        def fail(model: object, folder: Path) -> None:
            (folder / "model.safetensors").write_text("half")
            raise error

        monkeypatch.setattr(gguf_import, "write_model", fail)
        assert maporl("import", whole, tmp_path / "out") == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"maporl: {tmp_path / 'out'} cannot be written: the disk is full"
        )
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_import(
        self, whole: Path, tmp_path: Path, monkeypatch, number: signal.Signals
    ) -> None:
        def interrupt(model: object, folder: Path) -> None:
            (folder / "model.safetensors").write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)  # which the signal ends

        monkeypatch.setattr(gguf_import, "write_model", interrupt)
        # Processes that a shell starts in the background ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert maporl("import", whole, tmp_path / "out") == 130
        finally:
            signal.signal(signal.SIGINT, before)
        assert not any(tmp_path.iterdir())
