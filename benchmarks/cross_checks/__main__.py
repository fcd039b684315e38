"""Runs the checks of one module: python -m cross_checks NAME FOLDER, from benchmarks/."""

import importlib
import sys
import time
from pathlib import Path

import numpy as np

from cross_checks.probe import Probe

if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    results: dict[str, np.ndarray] = {}
    for check, run in (
        importlib.import_module(f"cross_checks.{name}").checks(Probe(folder / "probe.npz")).items()
    ):
        began = time.perf_counter()
        try:
            results[check] = np.asarray(run())
        except Exception as error:  # that a peer fails is a result
            if name == "hvd_xai":
                raise
            results[f"failed {check}"] = np.array(f"{type(error).__name__}: {error}"[:300])
        print(f"{name}, {check}: {time.perf_counter() - began:.1f} s", flush=True)
    np.savez(folder / f"{name}.npz", **results)
