"""Import of a GGUF file: it becomes a plain folder of transformers, settings, weights, tokenizer.

transformers reads the file, with the library `gguf`, and expands quantised weights. What is here
is everything around that: whether it can, what is missing, and that nothing half-written stays.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from maporl_agents.config import TeamConfig
from maporl_agents.models.bases import window_of
from maporl_agents.models.loading import examine
from maporl_agents.models.mixed_precision import dtype_of
from maporl_agents.models.sources.gguf_tokenizer import cut_as_trained
from maporl_agents.models.sources.weight_files import write_model
from maporl_agents.records.storage import GGUF_SOURCE, new_folder, require_new, save_json
from maporl_agents.text.tokenizer_files import first_line
from maporl_env.missing_extra import is_installed, missing_extra

WeightType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Header:
    """The fields of a GGUF file that are needed beside those that transformers reads.

    Attributes:
        architecture: `general.architecture`, e.g. "llama".
        weights: how many weights are kept in each format, e.g. {"Q4_1": 106_168_320}; most first.
        tokenizer: `tokenizer.ggml.model`, "" where the file has no tokenizer.
        rules: `tokenizer.ggml.pre`.
        parts: of how many files this is one.
    """

    architecture: str
    weights: Mapping[str, int]
    tokenizer: str
    rules: str
    parts: int


@dataclass(frozen=True)
class Imported:
    """A model that was written.

    Attributes:
        folder: of the model.
        header: of its file.
        warnings: of its tokenizer.
    """

    folder: Path
    header: Header
    warnings: tuple[str, ...]


def import_gguf(file: Path, to: Path, dtype: WeightType = "float32", sha256: str = "") -> Imported:
    """Write the model and the tokenizer of a GGUF file as `from_pretrained` reads them.

    Args:
        file: the GGUF.
        to: a new or empty folder; made whole or not at all.
        dtype: of the written weights.
        sha256: of the file, where it is known; noted in the folder.

    Raises:
        ValueError: the file is no GGUF, damaged, of a kind that transformers or this package
            cannot read, or `to` holds something; or the library `gguf` is missing.
        OSError: `file` cannot be read, or `to` cannot be written.
    """
    if dtype not in get_args(WeightType):
        raise ValueError(f"dtype must be one of {', '.join(get_args(WeightType))}, not {dtype!r}")
    require_new(to, "folder")
    _require_gguf(file)
    require_library()
    with tempfile.TemporaryDirectory() as scratch:
        # transformers looks at the end of the name, and for the bare name in the current folder.
        linked = Path(scratch, "model.gguf")
        linked.symlink_to(file.absolute())
        header = _examine(file, linked)
        _require_space(to, header, dtype)
        tokenizer, warning = _tokenizer(file, linked, header)
        with new_folder(to, "folder") as ready:
            model = _model(file, linked, dtype)
            write_model(model, ready)
            tokenizer.model_max_length = window_of(model) or tokenizer.model_max_length
            tokenizer.save_pretrained(ready)
            _check(file, ready)
            save_json(ready / GGUF_SOURCE, _source(file, header, dtype, sha256))
    return Imported(to, header, (warning,) if warning else ())


def _require_gguf(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ValueError(
                f"{file} is no GGUF file: it does not begin with the letters GGUF; a folder or a "
                "hub name in Hugging Face's format needs no import"
            )


def require_library() -> None:
    """Raise ValueError, which says what to install, where the library `gguf` is missing."""
    if not is_installed("gguf"):
        raise ValueError(missing_extra("reading a GGUF file", "gguf", "gguf"))


def _examine(file: Path, linked: Path) -> Header:
    """Return the header of a file that transformers can make a language model of."""
    refusal: Exception | None = None
    try:  # first: newer releases of transformers notice damaged counts, which gguf would follow
        config = AutoConfig.from_pretrained(str(linked.parent), gguf_file=str(linked))
    except Exception as error:  # whatever a damaged file makes of its reader
        refusal = error
    try:
        header = _header(linked)
    except Exception as error:
        raise _damaged(file, error) from error
    if header.parts > 1:
        raise ValueError(
            f"{file} is one of {header.parts} parts of a model: join them first, with "
            "llama-gguf-split --merge"
        )
    if refusal is not None:
        raise ValueError(
            f"transformers {transformers.__version__} cannot read {file}, a model of the kind "
            f"{header.architecture!r}: {first_line(refusal).rstrip('.')}"
            f"{_kinds(header.architecture)}"
        ) from refusal
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{file} is a {header.architecture!r}, which is no causal language model")
    if not header.tokenizer:
        raise ValueError(f"{file} has no tokenizer, so no text could be read or written with it")
    return header


def _header(file: Path) -> Header:
    reader = importlib.import_module("gguf").GGUFReader(file)

    def value(name: str, otherwise: Any) -> Any:
        field = reader.get_field(name)
        return otherwise if field is None else field.contents()

    weights: Counter[str] = Counter()
    for tensor in reader.tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    if not weights:
        raise ValueError("it holds no weights")
    return Header(
        architecture=str(value("general.architecture", "")),
        weights=dict(weights.most_common()),
        tokenizer=str(value("tokenizer.ggml.model", "")),
        rules=str(value("tokenizer.ggml.pre", "")),
        parts=int(value("split.count", 1)),
    )


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{file} is damaged or cut short ({first_line(error)}): download it again, and compare "
        "its size with the original's"
    )


def _kinds(architecture: str) -> str:
    """Return the kinds that can be read, as the end of a sentence, if this is not one of them."""
    module = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    known = getattr(module, "GGUF_SUPPORTED_ARCHITECTURES", ())  # names of other sections, too
    kinds = sorted(set(known) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    return "" if not kinds or architecture in known else f"; it reads {', '.join(kinds)}"


def _require_space(to: Path, header: Header, dtype: WeightType) -> None:
    there = next(folder for folder in (to, *to.absolute().parents) if folder.is_dir())
    needed = sum(header.weights.values()) * dtype_of(dtype).itemsize
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f"{to} needs {needed / 1e6:,.0f} MB for weights in {dtype}, and its disk has "
            f"{free / 1e6:,.0f} MB left"
        )


def _tokenizer(file: Path, linked: Path, header: Header) -> tuple[Any, str]:
    """Return the tokenizer of a file, and a warning or ""."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(linked.parent), gguf_file=str(linked))
    except Exception as error:
        raise ValueError(
            f"transformers cannot read the tokenizer of {file}, of the kind "
            f"{header.tokenizer!r}: {first_line(error)}"
        ) from error
    return tokenizer, cut_as_trained(tokenizer, header.tokenizer, header.rules)


def _model(file: Path, linked: Path, dtype: WeightType) -> PreTrainedModel:
    options: dict[str, Any] = {}
    if (packing := getattr(transformers, "GgufConfig", None)) is not None:
        options["quantization_config"] = packing(dequantize=True)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(linked.parent),
            gguf_file=str(linked),
            dtype=dtype_of(dtype),
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise _damaged(file, error) from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{file} is incomplete: {len(missing)} weights are missing ({', '.join(missing[:5])})"
        )
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise _damaged(file, ValueError(f"{name} holds numbers that are not finite in {dtype}"))
    return _unquantised(model)


def _unquantised(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model whose weights are expanded without the marks of its file's format."""
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if mark in vars(model):
            delattr(model, mark)
    for mark in ("quantization_config", "_model_name_or_path"):
        vars(model.config).pop(mark, None)
    return model


def _check(file: Path, ready: Path) -> None:
    """Refuse a model whose tokenizer or settings this package could not use."""
    try:
        tokenizer, _ = examine(str(ready), TeamConfig(device="cpu", tuning="none"))
    except ValueError as error:
        raise ValueError(str(error).replace(str(ready), str(file))) from error
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {file} names no token that ends a text")


def _source(file: Path, header: Header, dtype: str, sha256: str) -> dict[str, Any]:
    known = {"sha256": sha256} if sha256 else {}
    return {
        "file": file.name,
        **known,
        "architecture": header.architecture,
        "weights": dict(header.weights),
        "dtype": dtype,
    }
