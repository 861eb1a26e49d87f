"""Measurements: evaluation, metrics of a step, alarms, tables in the terminal."""
