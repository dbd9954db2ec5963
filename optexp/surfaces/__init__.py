"""Optimizers on surfaces of two parameters: the surfaces, the paths, and the tuning that makes them comparable."""
