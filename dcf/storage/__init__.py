"""The only rooms that know Zarr: the source that is read and the run group that is written."""
