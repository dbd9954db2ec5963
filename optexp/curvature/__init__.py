"""The curvature of the training loss at a checkpoint: eigenvalues of its Hessian, their trace, sharpness, slices."""
