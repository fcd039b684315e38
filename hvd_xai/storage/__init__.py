"""Bytes that know no explanations: arrays, Zarr shards, durable files."""
