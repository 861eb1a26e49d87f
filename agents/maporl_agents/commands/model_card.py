"""The model card of an exported run: Markdown with the hub's metadata, written from its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maporl_agents import tiny
from maporl_agents.config import scheme_of
from maporl_agents.records.storage import load_json
from maporl_agents.training.saved_run import read_config

OTHER_LICENCE = "other"
TINY_LICENCE = "mit"
_FOLDERS = re.compile(r"(?<![\w/])[~]?/(?:[^/:,=\s]+/)+")
STAGES = {"before": "before training", "after": "after training"}
LOAD_ADAPTER = """\
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{repo}", subfolder="{policy}")
```"""
LOAD_MODEL = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{repo}", subfolder="{policy}")
tokenizer = AutoTokenizer.from_pretrained("{repo}", subfolder="{policy}")
```"""


def model_card(run: Path, exported: Path, repo: str, licence: str = "") -> str:
    """Return the text of the README.md of an exported run.

    Args:
        run: folder of the run.
        exported: what `export` made of it: a folder per policy.
        repo: its name on the hub, "owner/name".
        licence: identifier of the hub, e.g. "apache-2.0"; "" for "mit" where only the built-in
            models were trained, else "other", with the advice to look at the base models'.

    Raises:
        CheckpointError: a file of the run cannot be read.
    """
    config = load_json(run / "config.json")
    scheme = scheme_of(read_config(run)).rpartition("/")[2]  # of one's own file, its name
    results = _json_of(run / "results.json")
    policies = sorted(folder.name for folder in exported.iterdir() if folder.is_dir())
    adapters = all((exported / name / "adapter_config.json").is_file() for name in policies)
    parts = [
        _metadata(config, results, repo, licence or licence_of(config), adapters, scheme),
        f"# {repo.rpartition('/')[2]}\n\n{_sentence(config, policies, scheme)}",
        "## Use\n\n"
        + (LOAD_ADAPTER if adapters else LOAD_MODEL).format(repo=repo, policy=policies[0]),
        _task(run, config),
        _held_out(results),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(run, config, results)),
        _licence(config, licence),
        _settings(run, config),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _json_of(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load_json(path) if path.is_file() else {}
    return found


def licence_of(config: Mapping[str, Any]) -> str:
    """Return the identifier of the licence where none is given."""
    built_in = all(name in tiny.MODELS for name in config["team"]["model"])
    return TINY_LICENCE if built_in else OTHER_LICENCE


def public_name(value: object) -> object:
    """Return a setting without the folders of this machine: of an absolute path its last part."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, list | tuple):
        return [public_name(one) for one in value]
    return value


def _base_models(config: Mapping[str, Any]) -> list[str]:
    """Return the base models that have a name on the hub."""
    names = dict.fromkeys(config["team"]["model"])
    return [name for name in names if name.count("/") == 1 and not Path(name).expanduser().exists()]


def _metadata(
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    repo: str,
    licence: str,
    adapters: bool,
    scheme: str,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task = str(public_name(config["game"]["task"]))
    measured = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            metric_type="accuracy",
            metric_name=f"vote of the last turn, {decoding}",
            metric_value=round(result["turns"][-1]["vote"], 4),
        )
        for decoding, result in results.get("after", {}).items()
    ]
    bases = _base_models(config)
    data = ModelCardData(
        license=licence,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="text-generation",
        base_model=bases or None,
        tags=["maporl", "multi-agent", "reinforcement-learning", scheme],
        model_name=repo.rpartition("/")[2] if measured else None,
        eval_results=measured or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _sentence(config: Mapping[str, Any], policies: list[str], scheme: str) -> str:
    game, team = config["game"], config["team"]
    models = ", ".join(map(str, map(public_name, dict.fromkeys(team["model"]))))
    what = "Adapters" if team["tuning"] == "lora" else "Weights"
    return (
        f"{what} of language models ({models}) trained together by reinforcement learning with "
        f"[maporl](https://pypi.org/project/maporl/), scheme `{scheme}`: "
        f"{game['num_agents']} agents, {game['num_turns']} turns, protocol `{game['protocol']}`, "
        f"{config['steps']} steps. One folder per policy: "
        + ", ".join(f"`{name}`" for name in policies)
        + "."
    )


def _task(run: Path, config: Mapping[str, Any]) -> str:
    game = config["game"]
    lines = [
        f"- Task `{public_name(game['task'])}`, trained on the split "
        f"`{game['train_split'] or 'train'}`.",
        f"- Rewards by the verifier `{public_name(game['verifier'])}`.",
    ]
    for name, found in _json_of(run / "questions.json").items():
        if isinstance(found, Mapping) and "count" in found:
            digest = str(found.get("sha256", ""))[:12]
            lines.append(f"- Questions, {name}: {found['count']:,} (SHA-256 {digest}...).")
    return "## Task\n\n" + "\n".join(lines)


def _held_out(results: Mapping[str, Any]) -> str:
    if not results:
        return "## Held-out questions\n\nNot measured: the run was exported before its end."
    rows = [
        "| stage | decoding | questions | turn | vote | each agent |",
        "|---|---|---|---|---|---|",
    ]
    for stage, by_decoding in results.items():
        for decoding, result in by_decoding.items():
            for turn, figures in enumerate(result["turns"], start=1):
                agents = ", ".join(f"{share:.3f}" for share in figures["accuracy"])
                rows.append(
                    f"| {STAGES.get(stage, stage)} | {decoding} | {result['num_questions']:,} | "
                    f"{turn} | {figures['vote']:.3f} ± {figures['vote_interval']:.3f} | {agents} |"
                )
    words = (
        "\n\nShares of right answers; vote: of the majority of the agents; ±: half width of a 95 % "
        "interval over questions, of one training run."
    )
    return "## Held-out questions\n\n" + "\n".join(rows) + words


def _limits(run: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    game = config["game"]
    yield (
        f"One training run (seed {config['seed']}): the intervals above hold no spread between "
        "runs."
    )
    yield (
        f"Trained and measured on `{public_name(game['task'])}` alone, with the prompts of this "
        f"debate ({game['num_agents']} agents, {game['num_turns']} turns). Nothing is known of "
        "other tasks, languages, prompts or numbers of agents."
    )
    yield "Not examined: safety, bias, and what else the base models may have lost."
    yield from _no_gain(results)
    for warning in _json_of(run / "questions.json").get("warnings", ()):
        yield str(warning)
    if raised := _alarms(run / "alarms.jsonl"):
        yield "Early warnings during training: " + ", ".join(
            f"{name} ({count})" for name, count in raised.items()
        )


def _no_gain(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each decoding whose last vote did not rise by more than both intervals."""
    for decoding, after in results.get("after", {}).items():
        before = results.get("before", {}).get(decoding)
        if before is None:
            continue
        last, first = after["turns"][-1], before["turns"][-1]
        if last["vote"] - first["vote"] <= last["vote_interval"] + first["vote_interval"]:
            yield (
                f"The vote of the last turn ({decoding}) changed from {first['vote']:.3f} to "
                f"{last['vote']:.3f}: no gain beyond the intervals was shown."
            )


def _alarms(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            name = str(json.loads(line)["name"])
        except (ValueError, TypeError, KeyError):
            continue
        counts[name] = counts.get(name, 0) + 1
    return counts


def _licence(config: Mapping[str, Any], given: str) -> str:
    if given:
        words = f"`{given}`, as given by who exported it. Licences of the base models hold too."
    elif licence_of(config) == TINY_LICENCE:
        words = "MIT, as the built-in models of maporl."
    else:
        words = (
            "No licence was given. These weights derive from the base models named above, whose "
            "licences hold; look there before use."
        )
    return f"## Licence\n\n{words}"


def _settings(run: Path, config: Mapping[str, Any]) -> str:
    versions = _json_of(run / "versions.json")
    packages = ", ".join(f"{n} {v}" for n, v in versions.get("packages", {}).items() if v)
    shown = json.dumps(_public(config), indent=1, ensure_ascii=False)
    return (
        f"## Settings\n\nMade with {packages or 'unknown versions'}. Learning rates and all other "
        f"settings of the run:\n\n<details><summary>config.json</summary>\n\n```json\n{shown}\n"
        "```\n\n</details>"
    )


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _public(one) for name, one in value.items()}
    return public_name(value)
