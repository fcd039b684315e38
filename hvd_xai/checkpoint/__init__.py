"""Explanation checkpoints: schema, write, commit, read, verify."""
