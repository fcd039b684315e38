"""What is installed, how Horovod is built for it, and whether it works."""
