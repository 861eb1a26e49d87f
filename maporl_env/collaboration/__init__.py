"""The two-agent collaboration game (section 2 of the MAPoRL paper) behind `collaboration_v0`."""
