"""Shared bases of the environments: what their AEC, Parallel and Gymnasium views have in common.

The environments themselves are `debate_v0`, `collaboration_v0`, `takeaway_v0`, `games.boxes_v0`.
"""
