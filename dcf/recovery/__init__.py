"""Recover: the full factor from its sketch, one column a task."""
