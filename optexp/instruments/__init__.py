"""Quantities measured while training."""
