"""Frozen values. Imports nothing of ours but errors, and nothing that touches the world."""
