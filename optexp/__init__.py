"""optexp: an experiment runner for optimizers that says why a run failed.

Importing the package is cheap: torch is imported only by the modules that train.
"""

__version__ = "0.1.0"
