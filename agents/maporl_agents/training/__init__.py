"""A training run from settings to results."""
