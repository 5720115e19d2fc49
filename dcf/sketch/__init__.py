"""Compress: projections, the row sample, the probe, and the block tasks that take them."""
