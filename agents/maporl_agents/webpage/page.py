"""Writes the HTML report: data, style and scripts in one file that loads nothing else.

Nothing that agents wrote becomes markup: all data stands in one JSON block in which every character
that could end it is escaped, and the scripts put texts into the page as text. The content security
policy names the hashes of our own style and script, so that no other would run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import string
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from maporl_agents.measure.debate_stats import TurnStats
from maporl_agents.records.storage import write_text
from maporl_agents.studies.claims import Judged, all_verdicts, judged
from maporl_agents.studies.results import Decoding, Metric, Study
from maporl_agents.studies.seed_intervals import Estimate
from maporl_agents.studies.verdicts import Verdict, rise_verdict
from maporl_agents.webpage import chart_data, debates
from maporl_agents.webpage.incentives import incentives
from maporl_agents.webpage.sources import DECODINGS, STAGES, Source, load
from maporl_env.rendering.plain_text import harmless

STATIC = files("maporl_agents.webpage") / "static"
SCRIPTS = ("dom.js", "charts.js", "sections.js", "debates.js")
METRICS: dict[Metric, str] = {
    "vote": "accuracy of the vote",
    "mean_accuracy": "mean accuracy",
    "score": "verifier score",
}
NOT_CORRECTED = (
    "Claims are judged one by one, at 95 % each, without a correction for their number; the page "
    "of all studies (maporl compare all --docs) has Holm's."
)
NO_CONTROLS = (
    "A single run carries no controls. Whether its rise is collaboration is for "
    "maporl compare to say: the trained agents asked alone, verdicts and peers shuffled, equal "
    "cost, more seeds."
)


def write_page(source: Path, out: Path | None = None) -> Path:
    """Write the page of a run or a study.

    Args:
        source: a run folder, a study folder, or a study's JSON file.
        out: the page; by default report.html in the folder.

    Returns:
        The path of the page.

    Raises:
        ValueError: `source` is neither run nor study, or a file of it is damaged.
        CheckpointError: a JSON file cannot be read.
        OSError: the page cannot be written.
    """
    source = Path(source)
    text = render(load(source))
    out = out or (source if source.is_dir() else source.parent) / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def render(source: Source) -> str:
    """Return the page as HTML."""
    style = _static("page.css")
    script = "\n".join(_static(name) for name in SCRIPTS)
    return string.Template(_static("template.html")).substitute(
        title=html.escape(harmless(source.study.title)),
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        data=embed(page_data(source)),
    )


def page_data(source: Source) -> dict[str, Any]:
    """Return all data of the page as JSON values."""
    study = source.study
    return {
        "kind": source.kind,
        "name": study.name,
        "title": study.title,
        "claim": study.claim,
        "claims": {d: [_judged(j) for j in judged(study, d)] for d in DECODINGS},
        "facts": _facts(study),
        "notes": [
            *study.notes,
            *((NO_CONTROLS,) if source.kind == "run" else ()),
            *((NOT_CORRECTED,) if study.claims else ()),
        ],
        "metric": METRICS[study.metric],
        "interval": interval_words(study),
        "verdicts": {d: [_verdict(study, v) for v in said(source, d)] for d in DECODINGS},
        "curves": chart_data.curves(study),
        "flips": chart_data.flips(study),
        "arms": chart_data.arms(study),
        "incentives": incentives(study),
        "training": chart_data.training(study),
        "debates": debates.debate_sets(source.debates),
        "settings": {"settings": study.settings, "versions": study.versions},
    }


def interval_words(study: Study) -> str:
    """Return a sentence that defines the intervals of the page."""
    seeds = max((len(arm.seeds) for arm in study.arms), default=0)
    if seeds > 1:
        return f"95 % intervals over {seeds} seeds (Student's t)"
    if study.metric == "vote":
        return "95 % intervals over questions; one seed, others may differ"
    return "one seed, without interval"


def said(source: Source, decoding: Decoding) -> list[Verdict]:
    """Return the verdicts as sentences; for a run, which has one seed, its rise over turns.

    The interval of a run is over questions, before and after taken as independent.
    """
    study = source.study
    if source.kind == "study":
        return all_verdicts(study, decoding)
    [arm] = study.arms
    [seed] = arm.seeds
    before, after = seed.find("before", decoding), seed.find("after", decoding)
    if before is None or after is None:
        return []
    first, last, old = after.turns[0], after.turns[-1], before.turns[-1]
    return [
        rise_verdict(arm.name, what, _over_questions(last, than))
        for what, than in (
            ("Training moves the last turn", old),
            ("From turn 1 to the last", first),
        )
    ]


def _over_questions(one: TurnStats, other: TurnStats) -> Estimate:
    half = float((one.vote_interval**2 + other.vote_interval**2) ** 0.5)
    return Estimate(one.vote - other.vote, half, (one.vote - other.vote,))


def _judged(judged: Judged) -> dict[str, str]:
    return {"words": judged.claim.words, "judgement": judged.judgement}


def _verdict(study: Study, verdict: Verdict) -> dict[str, str]:
    label = study.arm(verdict.arm).label
    return {"kind": verdict.kind, "arm": label, "sentence": verdict.sentence}


def _facts(study: Study) -> list[list[str]]:
    """Return the lines under the title: label and value."""
    seeds = sorted({seed.seed for arm in study.arms for seed in arm.seeds})
    facts = {
        "made": study.created.replace("T", " ").replace("+00:00", " UTC"),
        "command": study.command,
        "seed" if len(seeds) == 1 else "seeds": ", ".join(map(str, seeds)),
        "held-out questions": asked_words(study),
        **{name: value for name, value in study.budget.items() if name != "seeds"},
        **study.machine,
        "versions": _packages(study.versions),
        "commit": ", ".join(commit[:12] for commit in _commits(study.versions)),
    }
    return [[key.replace("_", " "), str(value)] for key, value in facts.items() if value]


def asked_words(study: Study) -> str:
    """Return the number of questions asked, as "500" or "100 before, 500 after training"."""
    measured = [m for arm in study.arms for seed in arm.seeds for m in seed.measurements]
    told = {}
    for stage in STAGES:
        if counts := {m.num_questions for m in measured if m.stage == stage}:
            told[stage] = ", ".join(f"{count:,}" for count in sorted(counts))
    if len(set(told.values())) < 2:
        return "".join(list(told.values())[:1])
    return ", ".join(f"{counts} {stage}" for stage, counts in told.items()) + " training"


def _packages(versions: Mapping[str, Any]) -> str:
    named = {**versions.get("packages", {}), "python": versions.get("python")}
    return ", ".join(
        f"{name} {named[name]}" for name in ("maporl", "torch", "python") if named.get(name)
    )


def _commits(versions: Mapping[str, Any]) -> list[str]:
    """Return the commits of a study's jobs, or the one of a run, as far as they are known."""
    return versions.get("commits") or [versions.get("commit") or ""]


# --- Text into HTML -----------------------------------------------------------------


def embed(value: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside <script type="application/json">, hidden characters too."""
    text = json.dumps(_clean(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _clean(value: Any) -> Any:
    """Return a JSON value whose texts hold no hidden or control characters."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, Mapping):
        return {harmless(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
