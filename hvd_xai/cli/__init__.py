"""The command line, `hvd-xai`: each module defines one command, a function of the module's name."""
