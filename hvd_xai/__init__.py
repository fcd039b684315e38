"""Trains Keras 3 models data-parallel with Horovod and records why they predict what they predict.

Public names are loaded when they are first used, so that `import hvd_xai` is fast and reading
checkpoints needs neither TensorFlow nor MPI. `hvd_xai.keras` is Horovod for Keras 3, and
`hvd_xai.attributions` holds the attribution methods.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd_xai.checkpoint.explanation import Explanation as Explanation
    from hvd_xai.checkpoint.reader import Explanations as Explanations
    from hvd_xai.checkpoint.reader import open_explanations as open_explanations
    from hvd_xai.checkpoint.retention import Retention as Retention
    from hvd_xai.checkpoint.run_directory import RunDirectory as RunDirectory
    from hvd_xai.errors import HvdXaiError as HvdXaiError
    from hvd_xai.explain.callback import Explain as Explain
    from hvd_xai.probe.probe import Data as Data
    from hvd_xai.probe.probe import Probe as Probe
    from hvd_xai.protocols import Attributed as Attributed
    from hvd_xai.protocols import Attribution as Attribution
    from hvd_xai.ranks.world import World as World
    from hvd_xai.recording.recorder import Recording as Recording
    from hvd_xai.train.settings import Training as Training

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "Attributed": "hvd_xai.protocols",
    "Attribution": "hvd_xai.protocols",
    "Data": "hvd_xai.probe.probe",
    "Explain": "hvd_xai.explain.callback",
    "Explanation": "hvd_xai.checkpoint.explanation",
    "Explanations": "hvd_xai.checkpoint.reader",
    "HvdXaiError": "hvd_xai.errors",
    "Probe": "hvd_xai.probe.probe",
    "Recording": "hvd_xai.recording.recorder",
    "Retention": "hvd_xai.checkpoint.retention",
    "RunDirectory": "hvd_xai.checkpoint.run_directory",
    "Training": "hvd_xai.train.settings",
    "World": "hvd_xai.ranks.world",
    "open_explanations": "hvd_xai.checkpoint.reader",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'hvd_xai' has no attribute '{name}'. Public names:"
            f" {', '.join(sorted(_PUBLIC))}"
        )
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
