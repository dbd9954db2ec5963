"""The learning rate range test: loss while the learning rate rises, what that suggests, and whether to trust it."""
