"""Computes one rank's attributions and predictions, of any number of examples."""
