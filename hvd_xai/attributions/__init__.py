"""Attribution methods: one module, one method, one public function of the module's name."""
