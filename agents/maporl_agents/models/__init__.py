"""Language models in memory: loading, adapters, output heads, critics, and the team they form."""
