"""Which versions there are, whom a step is played against, and that weights come back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from miniatures import Checkpoint, load_team, stir, weights

from maporl_agents.records.checkpoint_folder import CheckpointError
from maporl_agents.self_play.opponent_pool import Pool, candidates, drawn
from maporl_agents.self_play.ratings import Ratings


@pytest.mark.parametrize(
    ("step", "every", "most", "versions"),
    [
        (0, 5, 4, [0]),
        (4, 5, 4, [0]),
        (5, 5, 4, [0, 5]),
        (17, 5, 4, [0, 5, 10, 15]),
        (20, 5, 4, [0, 10, 15, 20]),
        (3, 1, 2, [0, 3]),
    ],
)
def test_the_untrained_team_and_the_newest(
    step: int, every: int, most: int, versions: list[int]
) -> None:
    assert candidates(step, every, most) == versions


def test_opponents_are_drawn_by_rule() -> None:
    ratings = Ratings(100.0, now=0.0, versions={0: -400.0, 5: 0.0, 10: 0.0})
    versions = [0, 5, 10]

    def shares(rule: str) -> dict[int, float]:
        found = Counter(drawn(versions, ratings, rule, 0, step) for step in range(3000))  # type: ignore[arg-type]
        return {version: found[version] / 3000 for version in versions}

    assert shares("latest") == {0: 0.0, 5: 0.0, 10: 1.0}
    error = 4 * (0.25 / 3000) ** 0.5
    assert shares("uniform") == pytest.approx(dict.fromkeys(versions, 1 / 3), abs=error)
    # 400 points behind, a version wins 1 game in 11; even ones every second.
    weights_of = {0: 1 / 11, 5: 0.5, 10: 0.5}
    total = sum(weights_of.values())
    expected = {version: weight / total for version, weight in weights_of.items()}
    assert shares("rating") == pytest.approx(expected, abs=error)


def test_a_draw_is_named_by_seed_and_step() -> None:
    ratings = Ratings(100.0, versions=dict.fromkeys(range(50), 0.0))
    versions = list(range(50))
    first = [drawn(versions, ratings, "uniform", 1, step) for step in range(20)]
    assert first == [drawn(versions, ratings, "uniform", 1, step) for step in range(20)]
    assert first != [drawn(versions, ratings, "uniform", 2, step) for step in range(20)]


def test_weights_of_versions_come_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    team, opponent = (load_team(checkpoint("llama")) for _ in range(2))
    pool = Pool(tmp_path, opponent)
    kept = {}
    for version in (0, 5, 10):
        stir(team, scale=0.1 * (version + 1))
        pool.add(version, team)
        kept[version] = {name: value.clone() for name, value in weights(team).items()}
    for version in (5, 0, 10):
        found = weights(pool.take(version))
        assert all(torch.equal(found[name], kept[version][name]) for name in kept[version])
    pool.keep_only([0, 10])
    left = {path.name for path in pool.folder.glob("step-*")}
    assert left == {"step-000000", "step-000010"}
    with pytest.raises(CheckpointError):
        pool.take(5)
