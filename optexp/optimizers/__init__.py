"""What stands between a config and a torch optimizer."""
