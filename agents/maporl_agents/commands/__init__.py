"""The commands of ``maporl``, one file each: its options and its code."""
