"""Does the advice of a diagnosis help? Its prescriptions trained against the original, on the same seeds."""
