"""Tests against real clouds, by whoever has an account: `nox -s live`. They cost money."""
