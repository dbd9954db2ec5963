"""Questions that are answered with numbers: arms, seeds, measures, and rules fixed before the data are looked at."""
