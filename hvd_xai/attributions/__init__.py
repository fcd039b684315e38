"""Holds the attribution methods: one module, one method, one public function of its name.

`gradient_x_input` is the shortest to begin from. `hvd_xai.scores.evaluate` runs the model for a
score, `hvd_xai.primitives.gradients` differentiates it, `hvd_xai.baselines.reference` gives
reference inputs; `hvd_xai.protocols.Attribution` is the contract.

A method casts inputs to float32 once. Its attributions are in units of the inputs as they are
given: where bytes are rescaled within the model, a gradient is per step of a byte, and a baseline
or a noise has values of 0 to 255.
"""
