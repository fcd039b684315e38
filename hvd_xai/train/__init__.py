"""Trains a recipe on all ranks."""
