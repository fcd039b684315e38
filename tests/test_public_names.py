"""The lazy names of `hvd_xai` are loaded when they are first used."""

import os
import subprocess
import sys
from pathlib import Path

import hvd_xai


def test_the_librarys_names_cost_nothing_until_used() -> None:
    program = (
        "import sys, hvd_xai; assert 'Probe' in dir(hvd_xai)\nheavy = {'numpy', 'tensorflow',"
        " 'keras', 'mpi4py', 'horovod', 'zarr'} & set(sys.modules); assert not heavy,"
        " heavy\nhvd_xai.Probe, hvd_xai.open_explanations\nheavy = {'tensorflow', 'keras',"
        " 'mpi4py', 'horovod'} & set(sys.modules); assert not heavy, heavy\ntry:\n   "
        " hvd_xai.Prob\nexcept AttributeError as error:\n    assert 'Probe' in str(error)\nelse:\n "
        "   raise AssertionError\n"
    )
    root = Path(hvd_xai.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def test_every_public_name_exists() -> None:
    assert [name for name in hvd_xai._PUBLIC if getattr(hvd_xai, name) is None] == []
