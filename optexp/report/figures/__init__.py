"""Figures: learning curves, heat maps, a metric against a setting, effects; as PNG files and for a page."""

from optexp.report.figures.comparison import curves
from optexp.report.figures.grid import heat_map
from optexp.report.figures.learning import legend_labels

__all__ = ["curves", "heat_map", "legend_labels"]
