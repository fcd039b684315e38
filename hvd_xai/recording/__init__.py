"""Merges the rows of all ranks into a committed explanation checkpoint."""
