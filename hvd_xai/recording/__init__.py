"""From the rows of all ranks to a committed explanation checkpoint."""
