"""Factorize: the sketch or the sample, in memory, to a real tolerance."""
