"""Refine: exact streaming passes over the data."""
