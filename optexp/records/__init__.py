"""The run directory: what training writes and everything else reads. Imports neither torch nor any plotting library."""
