"""Tasks for protocol `dialogue`, each with a scripted user."""
