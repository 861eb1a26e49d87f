"""A script that cooks in Overcooked, by the next thing to do and the shortest way there."""

from __future__ import annotations

from collections import deque
from typing import Any

WAYS = {(0, -1): 0, (0, 1): 1, (1, 0): 2, (-1, 0): 3}
STAY, INTERACT = 4, 5


def wanted(env: Any, cook: int) -> int:
    """Return the action of a cook, 0 to 5; it walks around nobody who stands still."""
    me = env.now.players[cook]
    others = {one.position for n, one in enumerate(env.now.players) if n != cook}
    goals = places(env, me.held_object.name if me.held_object is not None else "")
    free = set(env.kitchen.get_valid_player_positions()) - others
    came: dict[Any, Any] = {me.position: None}
    queue = deque([me.position])
    while queue:
        here = queue.popleft()
        for way in WAYS:
            there = here[0] + way[0], here[1] + way[1]
            if there in goals:
                return _first(came, me, here, way)
            if there in free and there not in came:
                came[there] = here, way
                queue.append(there)
    return STAY


def _first(came: dict[Any, Any], me: Any, here: Any, way: Any) -> int:
    """Return the first action on the way to a cell from which a goal lies in a direction."""
    if here == me.position:
        return INTERACT if me.orientation == way else WAYS[way]
    while came[here][0] != me.position:
        here = came[here][0]
    return WAYS[came[here][1]]


def places(env: Any, held: str) -> set[Any]:
    """Return where a cook that holds something, or "" for nothing, has to interact."""
    kitchen, soups = env.kitchen, env.now.objects
    pots = {pot: soups.get(pot) for pot in kitchen.get_pot_locations()}
    full = {pot for pot, soup in pots.items() if soup is not None and len(soup.ingredients) == 3}
    if held == "soup":
        return set(kitchen.get_serving_locations())
    if held == "dish":
        return {pot for pot in full if pots[pot].is_ready}
    if held == "onion":
        return set(pots) - full
    if idle := {pot for pot in full if pots[pot].is_idle}:
        return idle
    return set(
        kitchen.get_dish_dispenser_locations() if full else kitchen.get_onion_dispenser_locations()
    )
