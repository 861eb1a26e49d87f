"""HotpotQA: questions whose answer takes two passages (Yang et al., 2018), and sets in its form.

A row has "question", "answer" and "context", its passages: `[[title, [sentence, ...]], ...]` as
published, or the hub's `{"title": [...], "sentences": [[...], ...]}`; "supporting_facts" names
those that the answer needs. The answer is a short text (kind "phrase" of `answers`: compared
without case, articles and punctuation, the "exact match" of the paper).

By default every agent reads all passages. With `agents=2` they are dealt out as private texts, the
supporting ones to different agents, so that no agent alone has all of them. With `passages=3` only
those are shown that a search (BM25) for the question finds, and with `folder=DIR` it searches in
the text files of a folder instead of the row's own context.

Splits:

    train          as published, less "validation"
    validation     1,000 of the published training questions (of less than 10,000: none)
    test           the published development set; the published test set has no answers
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from maporl_env.answers import read_gold
from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.published.passages import Passage, PassageIndex, read_folder
from maporl_env.tasks.published.rows import deferred_parts, made, questions_by_split, text_of
from maporl_env.tasks.splits import Row, Splits, carve_spread_validation
from maporl_env.tasks.written_options import read_options
from maporl_env.types import Question

HUB_NAME = "hotpotqa/hotpot_qa"
NUM_VALIDATION = 1_000
TEMPLATE = Template(
    instruction="Put your final answer, a few words or yes or no, in \\boxed{{}}.",
    private="\n\nPassages that you alone can read:\n{text}",
)


@dataclass(frozen=True)
class Options:
    """How passages reach the agents. Made by `load`.

    Attributes:
        agents: number of agents that passages are dealt out to, as many as debate; 0: all read all.
        passages: the most passages of a question, the best found by a search; 0 for all.
        folder: of text files in which the search looks, in place of the row's own context; needs
            `passages`.

    Raises:
        ValueError: options that do not go together.
    """

    agents: int = 0
    passages: int = 0
    folder: str = ""

    def __post_init__(self) -> None:
        if self.agents < 0 or self.agents == 1:
            raise ValueError(f"agents must be 0 or at least 2, not {self.agents}")
        if self.passages < 0:
            raise ValueError(f"passages must be at least 0, not {self.passages}")
        if self.folder and not self.passages:
            raise ValueError("a folder is searched for a number of passages: set passages too")
        if self.folder:
            self.searched  # noqa: B018 - a folder that cannot be read is an error now

    @cached_property
    def searched(self) -> PassageIndex:
        """The index of the folder."""
        return PassageIndex(read_folder(Path(self.folder).expanduser()))


def load(data: str | Path | None = None, options: str = "") -> Task:
    """Return the task.

    Args:
        data: a published .json file, the same rows as .jsonl, a folder of such files with train and
            dev in their names, or "hotpotqa/hotpot_qa". None: the folder `$MAPORL_DATA/hotpotqa` if
            there is one, else the hub (configuration "distractor").
        options: as text.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a malformed row, with its place.
    """
    place = source("hotpotqa", data, HUB_NAME)
    read = partial(_question, read_options("hotpotqa", Options, options, {}))
    splits: Splits
    if isinstance(place, Path):
        splits = _carved(questions_by_split(place, "hotpotqa", read))
    else:
        splits = deferred_parts(lambda: _of_hub(place, read), ("train", "validation"))
        splits |= deferred_parts(
            lambda: {"test": _hub_split(place, "validation", "test", read)}, ("test",)
        )
    return Task(name="hotpotqa", splits=splits, template=TEMPLATE)


def _of_hub(place: str, read: Any) -> Splits:
    return {"validation": (), **_carved({"train": _hub_split(place, "train", "train", read)})}


def _hub_split(place: str, theirs: str, name: str, read: Any) -> list[Question]:
    return made(read_hub(place, "distractor", theirs), f"hotpotqa/{name}", read, bool, {})


def _carved(splits: Splits) -> Splits:
    return carve_spread_validation(splits, NUM_VALIDATION, 10 * NUM_VALIDATION)


def _question(options: Options, row: Row, where: str, name: str) -> Question:
    prompt, answer = text_of(row, "question", where).strip(), text_of(row, "answer", where)
    try:
        read_gold(answer, "phrase")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    given = str(row.get("_id") or row.get("id") or name)
    passages = _shown(options, prompt, row, where)
    if not options.agents:
        listed = "\n".join(map(str, passages))
        return Question(given, f"{prompt}\n\nPassages:\n{listed}", answer, "phrase")
    needed = _supporting(row, where)
    hands = dealt(passages, needed, options.agents, given)
    private = tuple("\n".join(map(str, hand)) or "(none)" for hand in hands)
    return Question(given, prompt, answer, "phrase", private)


def _shown(options: Options, prompt: str, row: Row, where: str) -> list[Passage]:
    if options.folder:
        return options.searched.search(prompt, options.passages)
    own = _context(row, where)
    if not options.passages:
        return own
    return PassageIndex(own).search(prompt, options.passages)


def dealt(
    passages: Sequence[Passage], needed: set[str], agents: int, seed: str
) -> list[list[Passage]]:
    """Return the passages of each agent: those with a needed title apart, all in shuffled order.

    Which agent gets which depends on `seed` alone.
    """
    rng = random.Random(sha256(seed.encode("utf-8", "replace")).digest())
    order = sorted(passages, key=lambda passage: passage.title not in needed)
    first = rng.randrange(agents)
    hands = [order[(agent - first) % agents :: agents] for agent in range(agents)]
    for hand in hands:
        rng.shuffle(hand)
    return hands


def _context(row: Row, where: str) -> list[Passage]:
    given = row.get("context")
    pairs = _pairs(given, "title", "sentences")
    if not pairs:
        raise ValueError(f"{where}: column 'context' must hold passages: [[title, [sentence]]]")
    passages = []
    for title, sentences in pairs:
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise ValueError(f"{where}: the sentences of passage {title!r} must be texts")
        passages.append(Passage(str(title), " ".join("".join(sentences).split())))
    return passages


def _supporting(row: Row, where: str) -> set[str]:
    pairs = _pairs(row.get("supporting_facts"), "title", "sent_id")
    if not pairs:
        raise ValueError(
            f"{where}: column 'supporting_facts' must name the passages that agents share out"
        )
    return {str(title) for title, _ in pairs}


def _pairs(given: Any, first: str, second: str) -> list[tuple[Any, Any]]:
    """Return pairs from a list of them, or from two lists by name; [] if it is neither."""
    if isinstance(given, dict):
        ones, others = given.get(first), given.get(second)
        if not isinstance(ones, list) or not isinstance(others, list) or len(ones) != len(others):
            return []
        return list(zip(ones, others, strict=True))
    if not isinstance(given, list) or not all(isinstance(p, list) and len(p) == 2 for p in given):
        return []
    return [(one, other) for one, other in given]
