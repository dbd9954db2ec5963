"""Which of the keys that differ between a failing and a working configuration make the difference, and how much."""
