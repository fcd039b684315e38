"""Numbers from committed explanations, without pictures."""
