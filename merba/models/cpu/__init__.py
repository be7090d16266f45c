"""The models' CPU kernels."""
