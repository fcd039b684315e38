"""One rank's numbers: attributions and predictions of any number of examples."""
