"""The training engine: it knows no Hydra, no OmegaConf and no TensorBoard."""
