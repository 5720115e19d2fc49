"""Parse → typed options → one call → print; no mathematics."""
