"""Finds what is installed, builds Horovod for it, and checks that ranks can work with it."""
