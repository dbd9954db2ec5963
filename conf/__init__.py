"""The config groups of optexp, installed as the package `optexp.conf` so that a wheel carries them."""
