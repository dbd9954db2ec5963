"""Watching training code that is the user's own: what a run of optexp measures, and the same diagnosis."""
