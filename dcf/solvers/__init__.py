"""Small kernels that the mathematics rooms share."""
