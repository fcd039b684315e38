"""Tests; a package, as some libraries install one of this name, which would hide a mere folder."""
