"""Branching episodes: how they grow, what their messages are worth, what is learnt."""
