"""A model while it is traced."""
