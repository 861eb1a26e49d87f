"""One file per outside library or interface."""
