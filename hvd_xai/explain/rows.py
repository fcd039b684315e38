"""Computes this rank's rows of a checkpoint."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from hvd_xai.analysis.doubts import Rows, magnitudes
from hvd_xai.checkpoint.rows import decode, encode
from hvd_xai.compute.attribute import Compute, Computed
from hvd_xai.compute.predict import Predicted
from hvd_xai.explain.not_finite import NotFinite
from hvd_xai.explain.share import ProbeShare
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.recording.unfinished_rows import reuse_rows


def compute_rows(
    compute: Compute,
    share: ProbeShare,
    predicted: Predicted,
    buffer: RowBuffer,
    report: Callable[[int], None],
    look: Callable[[Rows], None] = lambda _: None,
    *,
    not_finite: NotFinite | None = None,
    channels_first: bool = False,
) -> Float32[np.ndarray, "g"]:
    """Attributes the share's examples block by block, and appends their rows to the buffer.

    Rows that a killed job left in the buffer are not computed again.

    Args:
        compute: compiled method.
        share: this rank's share of the probe.
        predicted: predictions and scores of the share's rows.
        buffer: buffer that receives the rows, and may hold rows of a killed job.
        report: function to call after each block, with the number of rows that this rank has done.
        look: function to call with each block, to find doubts in it.
        not_finite: tally that counts the rows whose attributions are not finite.
        channels_first: whether the first axis of one sample's attributions has channels.

    Returns:
        The convergence deltas of the rows, `[n]`; empty if the method has none.
    """
    probe, deltas = share.probe, [np.empty(0, np.float32)]
    labels = probe.targets if probe.labels is None else probe.labels
    for start, stop in share.blocks(compute.sample_shape, compute.micro_batch):
        #   probe:      0 ... share.start ... start ... stop ... share.stop ... N
        #   predicted:        0 .........  first ... last
        first, last = start - share.start, stop - share.start
        inputs, targets, ids = share.examples(start, stop)
        rows = reuse_rows(buffer, first, ids)
        computed: Computed | None = None
        if rows is None:
            computed = compute(inputs, targets, ids)
            columns = {
                "sample_id": ids,
                "target": targets,
                "label": labels[start:stop],
                "prediction": predicted.predictions[first:last],
                "score": predicted.scores[first:last],
                **computed.per_sample,
            }
            rows = encode(
                buffer.dtype,
                computed.attributions,
                rank=share.rank,
                channels_first=channels_first,
                **columns,
            )
            buffer.append(rows)
        if not_finite is not None:
            not_finite.add(rows)
        of_block = None
        if "convergence_delta" in compute.per_sample:
            of_block = np.asarray(rows["convergence_delta"], np.float32)
            deltas.append(of_block)
        look(
            Rows(
                computed.attributions if computed is not None else decode(rows),
                rows["score"],
                targets,
                # ids of tokens are no magnitudes
                np.ones(len(inputs)) if probe.vocabulary else magnitudes(inputs),
                of_block,
            )
        )
        report(last)
    return np.concatenate(deltas)
