"""Explains a model's probe on all ranks: the parts put together."""
