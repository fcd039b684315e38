"""The question: the examples that are explained, and how data sets are read."""
