"""Explanations in the formats of others: one file is one format, found by its being there."""
