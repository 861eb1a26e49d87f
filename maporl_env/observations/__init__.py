"""Observations and actions as text or as token ids: spaces and codecs."""
