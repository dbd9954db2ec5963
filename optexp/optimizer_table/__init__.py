"""A table of optimizers: what each costs in memory and time, how fast and how far it comes, and how much lr matters."""
