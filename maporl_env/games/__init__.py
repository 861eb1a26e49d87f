"""Cooperative planning games as PettingZoo environments.

- `boxes_v0`: arms on a grid carry boxes to their targets.
"""
