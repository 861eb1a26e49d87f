"""Files of a run, written and read: run folder, checkpoints, logs, settings."""
