"""The choice from judged samples: pairs of siblings, positive messages, right paths."""

from __future__ import annotations

import json

from made_trees import BY_HAND, grown, sample

from maporl_agents.trees.preference_pairs import (
    Example,
    Preference,
    positives,
    right_paths,
    sibling_pairs,
)
from maporl_agents.trees.tree_values import Judged, judge


class TestChoice:
    def test_pairs_by_hand(self) -> None:
        pairs = sibling_pairs(judge(grown(BY_HAND), 0.5))
        counts = dict.fromkeys({pair.chosen.parent for pair in pairs}, 0)
        for pair in pairs:
            assert pair.chosen.parent == pair.rejected.parent
            counts[pair.chosen.parent] += 1
        # generator 1 x 1; verifier 2 x 1 and 1 x 2; refiner p (3 - p) as above
        assert counts == {
            (0, ()): 1,
            (0, (0,)): 2,
            (0, (1,)): 2,
            (0, (0, 0)): 2,
            (0, (0, 1)): 2,
            (0, (1, 1)): 2,
            (0, (1, 2)): 2,
        }

    def test_siblings_with_the_same_tokens_make_no_pair(self) -> None:
        good = Judged(sample((0,), ids=(8, 9)), 1.0, True)
        bad = Judged(sample((1,), ids=(8, 9)), 0.0, False)
        other = Judged(sample((2,), ids=(8, 3)), 0.0, False)
        assert sibling_pairs([good, bad, other]) == [
            Preference(good.sample, other.sample, 1.0, 0.0)
        ]

    def test_positives_once(self) -> None:
        chosen = positives(judge(grown(BY_HAND), 0.5))
        assert {one.sample.path for one in chosen if len(one.sample.path) == 1} == {(1,)}
        assert all(one.times == 1 for one in chosen)

    def test_right_paths_as_often_as_they_led_there(self) -> None:
        chosen = {one.sample.path: one.times for one in right_paths(judge(grown(BY_HAND), 0.5))}
        assert {path: times for path, times in chosen.items() if len(path) < 3} == {
            (0,): 4,
            (1,): 5,
            (0, 0): 2,
            (0, 1): 2,
            (1, 0): 3,
            (1, 1): 1,
            (1, 2): 1,
        }
        assert sum(times for path, times in chosen.items() if len(path) == 3) == 9

    def test_what_is_chosen_survives_json(self) -> None:
        judged = judge(grown(BY_HAND), 0.5)
        by_place = {one.sample.place: one.sample for one in judged}
        for example in positives(judged):
            row = json.loads(json.dumps(example.to_dict()))
            assert Example.from_dict(row, by_place) == example
        for pair in sibling_pairs(judged):
            row = json.loads(json.dumps(pair.to_dict()))
            assert Preference.from_dict(row, by_place) == pair
