"""Turns names into objects, and objects into names."""
