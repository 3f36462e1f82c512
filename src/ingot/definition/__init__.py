"""Text → Definition: load, lint, lock."""
