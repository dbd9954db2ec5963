"""What `scripts/bench` runs: one file for how contestants are compared, one per kind of contestant or question."""
