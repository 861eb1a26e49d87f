"""Debates for people to look at: as text and as a picture."""
