"""Ingot builds machine images for compute clusters and looks after them for their whole life."""

__version__ = "0.1.0"
