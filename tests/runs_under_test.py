"""Makes small runs of explanation checkpoints without TensorFlow.

They hold random attributions of random images, or of a given probe.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.manifest import Header, RankRows
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.rows import encode, row_dtype
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Channels

CLASS_NAMES = ("ant", "bee", "cat")


def make_probe(
    n_samples: int = 12,
    shape: tuple[int, ...] = (8, 8, 1),
    first_id: int = 0,
    feature_names: tuple[str, ...] = (),
) -> Probe:
    generator = np.random.default_rng(0)
    return Probe(
        inputs=generator.random((n_samples, *shape), np.float32),
        targets=(np.arange(n_samples) % 3).astype(np.int32),
        sample_ids=np.arange(first_id, first_id + n_samples, dtype=np.int64),
        class_names=CLASS_NAMES,
        feature_names=feature_names,
    )


def make_run(
    path: Path,
    probe: Probe,
    epochs: Sequence[int] = (0, 1, 2),
    *,
    cam: bool = True,
    with_probe: bool = True,
) -> Path:
    """Commits `integrated_gradients` and, if asked for, `grad_cam` at each epoch.

    Every third prediction is wrong before the last epoch.
    """
    explanations_dir = open_run(path, config={"recipe": "test"}, mode="resume")
    if with_probe:
        write_probe(explanations_dir, probe)
    sample_shape = probe.inputs.shape[1:]
    for epoch in epochs:
        add_explanation(
            explanations_dir,
            probe,
            epoch,
            "integrated_gradients",
            sample_shape,
            last=epoch == epochs[-1],
        )
        if cam:
            add_explanation(
                explanations_dir, probe, epoch, "grad_cam", (3, 3), last=epoch == epochs[-1]
            )
    return path


def add_explanation(
    explanations_dir: Path,
    probe: Probe,
    epoch: int,
    method: str,
    sample_shape: tuple[int, ...],
    *,
    last: bool = False,
    score: np.ndarray | None = None,
    channels: Channels | None = None,
) -> np.ndarray:
    """Commits one explanation; returns its attributions before they were stored."""
    signed = method == "integrated_gradients"
    generator = np.random.default_rng(epoch)
    values = generator.normal(scale=0.1, size=(len(probe), *sample_shape)).astype(np.float32)
    attributions = values if signed else np.maximum(values, 0)
    per_sample = (
        {"convergence_delta": generator.normal(scale=1e-3, size=len(probe)).astype(np.float32)}
        if signed
        else {}
    )
    wrong = (np.arange(len(probe)) % 3 == 0) & (not last)
    header = Header(
        run="test",
        epoch=epoch,
        step=10 * (epoch + 1),
        method=method,
        options={},
        n_samples=len(probe),
        sample_shape=sample_shape,
        world_size=1,
        ranks=(RankRows(0, "here", 0, len(probe)),),
        weights_digest=f"{epoch:032x}",
        probe_digest="0" * 32,
        versions={},
        attributed_to="inputs" if sample_shape == probe.inputs.shape[1:] else "places",
        channels=channels,
    )
    channels_first = header.channels_first
    dtype = row_dtype(
        sample_shape,
        per_sample={name: values.dtype for name, values in per_sample.items()},
        channels_first=channels_first,
    )
    writer = Writer(explanations_dir, header, dtype)
    columns = {
        "sample_id": probe.sample_ids,
        "target": probe.targets,
        "prediction": np.where(wrong, (probe.targets + 1) % 3, probe.targets).astype(np.int32),
        "score": np.linspace(0.5, 1.0, len(probe), dtype=np.float32) if score is None else score,
        **per_sample,
    }
    writer.append(encode(dtype, attributions, rank=0, channels_first=channels_first, **columns))
    writer.commit()
    return attributions
