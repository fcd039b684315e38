"""Names of the folders and files of a run."""

EXPLANATIONS = "explanations"
"""The run's folder that holds all of its explanations, a Zarr group."""

EPOCHS = "epochs"
"""Folder, within that of the explanations, that has a folder for each epoch."""

RUN = "run.json"
"""What the run was started with, in the folder of its explanations."""

LOCK = ".lock"
"""In the run's folder, locked by the job that writes there."""
