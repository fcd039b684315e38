"""Holds the checks of `hvd-xai doctor`: one public function of a module is one check."""
