"""Wires a recipe, its callbacks and the ranks into one training."""
