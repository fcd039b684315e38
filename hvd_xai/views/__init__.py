"""Draws explanations as pictures."""
