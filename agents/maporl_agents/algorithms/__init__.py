"""How a team learns: one readable loop per file."""
