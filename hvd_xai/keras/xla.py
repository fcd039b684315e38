"""Refuses training steps that XLA would compile, since it cannot compile Horovod's collectives."""

import tensorflow as tf


def refuse_xla() -> None:
    """Raises while TensorFlow traces a function that XLA is to compile.

    XLA's own error would name a line of this library and no remedy.

    Raises:
        ValueError: inside a function that is compiled with `jit_compile=True`.
    """
    # TensorFlow's context of XLA is looked for in the graph that is traced and in those around it:
    # under loss scaling or accumulation this code runs in a branch of the step's graph.
    if tf.__internal__.get_enclosing_xla_context() is not None:
        raise ValueError(
            "this training step is compiled with jit_compile=True, but XLA cannot compile"
            " Horovod's allreduce. Compile it with jit_compile=False, or pass"
            " BroadcastGlobalVariablesCallback to fit, which turns it off."
        )
