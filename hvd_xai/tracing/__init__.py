"""Changes how a model runs while it is traced, and rebuilds no model."""
