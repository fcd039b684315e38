"""Who is run by cross_check.py: one module for us and for each peer, with a function `checks` that
returns what it can run, by name.
"""
