"""What agents read and write as text or as token ids: spaces, codecs, budgets."""
