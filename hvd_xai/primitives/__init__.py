"""Holds the pieces that attribution methods are made of."""
