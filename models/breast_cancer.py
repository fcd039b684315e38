"""A small network on scikit-learn's 569 real biopsies: 30 measurements of cell nuclei each, and
whether the tumour was malignant.

    mpirun -np 2 hvd-xai train breast_cancer --epochs 10 --method permutation_shap --method
    integrated_gradients --output runs/biopsies hvd-xai show runs/biopsies --sample 17 --png out.png

A table, as most data of banks and hospitals are: the features have names, which pictures and
exports show, and the one output is the probability of class 1, which is what is explained. Trains
to about 95 % in ten epochs, in seconds; 100 biopsies are held out as the probe, another 100 for
validation.
"""

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer

from hvd_xai import Data, Probe

N_HELD_OUT = 100


def build(*, units: int = 32, dropout: float = 0.2, learning_rate: float = 5e-3) -> keras.Model:
    """Builds and compiles the network; hvd-xai makes the optimizer reduce over the ranks and scales
    its learning rate by their number.
    """
    model = keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(units // 2, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid", name="malignant"),
        ],
        name="breast_cancer",
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    return model


def load(*, batch_size: int = 16) -> Data:
    """Loads the biopsies, of which the first are the probe and the next the validation set; both
    are scaled as the others are.
    """
    biopsies = load_breast_cancer()
    probe, validation, train = (
        slice(0, N_HELD_OUT),
        slice(N_HELD_OUT, 2 * N_HELD_OUT),
        slice(2 * N_HELD_OUT, None),
    )
    of_train = biopsies.data[train]
    # so that 0, the baseline, is the average
    table = ((biopsies.data - of_train.mean(axis=0)) / of_train.std(axis=0)).astype(np.float32)
    malignant = (biopsies.target == 0).astype(np.int32)
    return Data(
        train=(table[train], malignant[train]),
        validation=(table[validation], malignant[validation]),
        probe=Probe(
            table[probe],
            malignant[probe],
            class_names=("benign", "malignant"),
            feature_names=tuple(biopsies.feature_names),
        ),
        batch_size=batch_size,
    )
