"""From command line words to checked, plain configuration values."""
