"""Why a run did not train: its outcome, ranked causes with evidence, and the repair as a command."""
