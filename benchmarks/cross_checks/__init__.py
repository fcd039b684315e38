"""Holds a module for us and for each peer, which cross_check.py runs.

Each has a function `checks` that returns what it can run, by name.
"""
