"""Names of the folders and files of a run."""

EXPLANATIONS = "explanations"
"""The run's folder that holds all of its explanations, a Zarr group."""

RUN = "run.json"
"""What the run was started with, in the folder of its explanations."""

LOCK = ".lock"
"""In the run's folder, locked by the job that writes there."""
