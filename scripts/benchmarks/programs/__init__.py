"""What optexp's command line is compared with: programs as users of Hydra, torch.func and Lightning write them."""
