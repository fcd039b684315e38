"""From names to objects and back."""
