"""Declares options of commands, with what `--help` says of each.

An option that several commands have is declared once, and so are all options of the commands that
run on all ranks, which have many; the defaults stand with the command.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Run: TypeAlias = Annotated[
    str, typer.Argument(help="The folder of a run, or its URL: s3://bucket/run.", metavar="RUN")
]

Recipe: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="A shipped recipe (digits_cnn), path/to/file.py or package.module:name.",
        metavar="RECIPE",
    ),
]

SavedModel: TypeAlias = Annotated[
    Path, typer.Argument(help="A saved model, a .keras file.", metavar="MODEL")
]

DataSet: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help=(
            "A data set: .npz (inputs, targets and, if they are there, class_names, feature_names"
            " or vocabulary), .npy, .tfrecord, Zarr, or a folder with a folder for each class, in"
            " order of name. The model gets it as it is, pixels of image files from 0 to 255. For a"
            " model of several inputs, .npz, Zarr and .tfrecord have, in place of inputs, an array"
            " for each by its name: np.savez('test.npz', age=..., photo=..., targets=...)."
        ),
        metavar="DATA",
    ),
]

OutputOfRecipe: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The run directory. [default: runs/ and the recipe's name]",
        metavar="RUN",
    ),
]

OutputOfData: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The run directory. [default: runs/ and the name of DATA]",
        metavar="RUN",
    ),
]

Callbacks: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="A callback recipe. Can be given again. [default: explain_every_epoch]",
        metavar="RECIPE",
    ),
]

MethodNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="A method to explain with. Can be given again. [default: the callback's]",
        metavar="METHOD",
    ),
]

NamedMethods: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "A method's name, path/to/file.py or package.module:name; NAME= before it says what it"
            " is committed under. Can be given again. [default: integrated_gradients]"
        ),
        metavar="[NAME=]METHOD",
    ),
]

Epochs: TypeAlias = Annotated[int, typer.Option(min=1, help="Number of epochs in all.")]

BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Number of examples in a batch of one rank. [default: the recipe's]"),
]

WarmupEpochs: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        help=(
            "Number of epochs over which the learning rate rises from that of one rank to that of"
            " all ranks."
        ),
    ),
]

Seed: TypeAlias = Annotated[int, typer.Option(help="Seed of weights, shuffling and dropout.")]

RecipeSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help=(
            "An option of the recipe or of a callback. Can be given again; a wrong name lists them"
            " all."
        ),
        metavar="NAME=VALUE",
    ),
]

MethodSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help=(
            "An option of a method, or of its score or baseline, as score.head=0 and"
            " baseline.sigma=4. Can be given again; a wrong name lists them all."
        ),
        metavar="[METHOD.]NAME=VALUE",
    ),
]

Targets: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help=(
            "What to explain of each input, a .npy file, where DATA does not say. With --set"
            " score=predicted none are needed: what the model predicts is taken for target and"
            " label."
        )
    ),
]

Features: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "Where TFRecord examples have something: inputs=x:float32:8,8,1. Can be given again."
        ),
        metavar="NAME=KEY:KIND:SHAPE",
    ),
]

PrecisionName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help=(
            "bfloat16 to explain in it, which is faster and some percent less exact; how much is"
            " recorded. [default: the model's own]"
        ),
        metavar="bfloat16",
    ),
]

CustomObjects: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Classes of your own in the model: path/to/file.py or package.module:name."),
]

UnsafeModels: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--unsafe-models",
        help=(
            "Run code that the model's file carries, as that of Lambda layers. Only for a file"
            " whose maker you trust."
        ),
    ),
]

Resume: TypeAlias = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the run that is there, behind what it has."),
]

Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Remove the run that is there, and start anew.")
]

DryRunOfTraining: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say how long explaining will take; train nothing, write nothing."
    ),
]

DryRun: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what explaining will take; explain nothing, leave nothing."
    ),
]
