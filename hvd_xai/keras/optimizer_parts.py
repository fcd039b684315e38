"""What Keras's optimizers are made of: the optimizers that they wrap, and their state."""

import keras


def with_inner(optimizer: "keras.optimizers.Optimizer") -> "list[keras.optimizers.Optimizer]":
    """Returns the optimizer and the optimizers that it wraps."""
    inner = (
        [optimizer.inner_optimizer]
        if hasattr(optimizer, "inner_optimizer")
        else getattr(optimizer, "_inner_optimizers", [])
    )
    return [optimizer, *inner]


def accumulates_in_keras(optimizer: "keras.optimizers.Optimizer") -> bool:
    """Returns whether Keras accumulates gradients, in the optimizer or in the one it wraps."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(inner.gradient_accumulation_steps)


def copy_state(optimizer: "keras.optimizers.Optimizer", copy: "keras.optimizers.Optimizer") -> None:
    """Copies what the configuration lacks: variables, and the exceptions from weight decay."""
    for mine, theirs in zip(with_inner(optimizer), with_inner(copy), strict=True):
        for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
            if hasattr(mine, name):
                setattr(theirs, name, getattr(mine, name))
    if optimizer.built:
        # Keras has no public name for an optimizer's variables that it trains.
        copy.build(optimizer._trainable_variables)
        for mine, theirs in zip(optimizer.variables, copy.variables, strict=True):
            theirs.assign(mine)
