import numpy as np

from hvd_xai.lookup.recipes import load_recipe

RECIPE = load_recipe("digits_cnn", "models", ["build", "load"])


def test_the_data_are_disjoint_and_of_the_models_shape() -> None:
    data = RECIPE.functions["load"]()
    parts = [data.train[0], data.validation[0], data.probe.inputs]
    assert [len(part) for part in parts] == [1285, 256, 256]
    assert all(
        part.shape[1:] == (8, 8, 1)
        and part.dtype == np.float32
        and part.min() == 0
        and part.max() == 1
        for part in parts
    )
    assert RECIPE.functions["build"]().output_shape == (None, 10)


def test_its_options_reach_the_model() -> None:
    model = RECIPE.functions["build"](filters=4, units=8, learning_rate=0.5)
    assert model.get_layer("conv1").filters == 4
    assert float(model.optimizer.learning_rate) == 0.5
