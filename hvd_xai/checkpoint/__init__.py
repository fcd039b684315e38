"""Writes, commits, reads and verifies explanation checkpoints, and defines their schema."""
