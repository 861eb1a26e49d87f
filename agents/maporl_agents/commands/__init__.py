"""What the commands of ``maporl`` do, each beside its options."""
