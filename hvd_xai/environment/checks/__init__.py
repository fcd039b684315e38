"""What `hvd-xai doctor` looks at: one public function of a module is one check."""
