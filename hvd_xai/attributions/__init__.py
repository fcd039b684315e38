"""Holds the attribution methods: one module, one method, one public function of its name.

`gradient_x_input` is the shortest to begin from. `hvd_xai.scores.evaluate` runs the model for a
score, `hvd_xai.primitives.gradients` differentiates it, `hvd_xai.baselines.reference` gives
reference inputs; `hvd_xai.protocols.Attribution` is the contract.
"""
