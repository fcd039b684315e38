"""Holds the sinks: the places that an explanation goes to once it is committed.

One module is one sink: one class, named as the module in CamelCase.

A sink is called on the root alone, after the commit, with the run and the committed explanation: it
writes beside the run, and reads the explanation in bounded blocks, never whole. The thread that
calls it writes files while another one trains: a sink touches files only, no ranks and no model.
`hvd_xai.protocols.Sink` is the contract.

Every rank makes the sinks, so making one touches no file. It may require a `path`, and nothing
else. `run.path` is the run's folder, `explanation.manifest` knows method and epoch,
`explanation.blocks(BLOCK_BYTES)` yields attributions, `explanation.column("score")` one number a
sample. `BLOCK_BYTES` is a constant of every sink's module: how much it reads at a time.
"""
