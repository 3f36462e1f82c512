"""Checking built images: boot, look, record."""
