"""Figures beside their peers. `nox -s bench` prints a table and fails when one is missed."""
