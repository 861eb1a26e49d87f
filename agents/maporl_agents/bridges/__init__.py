"""Bridges: our models in other libraries, and other environments for our learners."""
