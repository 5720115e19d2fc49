"""Clusters: files that describe them, the workers that compute, the batch jobs that they live in."""
