"""The fixed examples that are explained every time, and what a training recipe loads."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hvd_xai.probe.columns import check_numbers, make_column
from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.probe.packing import Packing, pack
from hvd_xai.probe.window import check_window

_LARGEST_ID = 2**63 - 1
_IDS = f"whole numbers from 0 to {_LARGEST_ID}"
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Probe:
    """Holds the fixed examples that are explained every time, ordered by sample id.

    Every rank holds the same probe.

    Args:
        inputs: inputs of the model, `[N, ...]`; of a memory-mapped array each rank reads its own
            rows only.
        targets: class ids, or values for a regression, `[N]`; the score selects by them. A column
            `[N, 1]` is taken as well, here and of the ids and labels.
        sample_ids: unique whole numbers from 0 on, `[N]`; `arange(N)` if left out. The rows of
            every checkpoint are ordered by them.
        labels: labels of the data set, `[N]`, if they differ from the targets; integers if the
            targets are integers.
        class_names: names of the classes, for people.
        feature_names: names of all d values of one input, for people; only for a table, whose
            inputs are `[N, d]`.
        vocabulary: word of each token id, for people, as `keras.layers.TextVectorization` returns
            it; only for texts, whose inputs are token ids `[N, T]`. The word of padding is "".
        packing: how several inputs lie in each row, as `Probe.of_several` makes it; None for a
            model of one input.
        window: values of the inputs that pictures draw darkest and brightest, such as (-160, 240)
            of a CT in Hounsfield units; what lies beyond is clipped. If None, integers of one byte
            are drawn over all values of their dtype, and others over the robust range of the whole
            probe (`hvd_xai.probe.window`), without outliers.
        kind: kind of data, by the name of a module in `hvd_xai/views/kinds/`, such as "image" for
            a hyperspectral image `[h, w, 30]`, which looks like a volume. If None, pictures go by
            shape and names.

    Raises:
        TypeError: if inputs, targets, sample ids or labels are no NumPy array.
        ValueError: if a shape, a dtype or the number of names is not as described above, a sample
            id or a feature's name occurs twice, a token id has no word, or the window is no two
            rising numbers.

    Example:
        >>> probe = Probe(np.array([[41, 2.5], [35, 0.0]]), np.array([1, 0]), np.array([7, 3]))
        >>> probe.sample_ids
        array([3, 7])
        >>> probe.targets
        array([0, 1])
    """

    inputs: np.ndarray
    targets: np.ndarray
    sample_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    packing: Packing | None = None
    window: Sequence[float | int] | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        self._check_types()
        n_samples = len(self.inputs)
        if n_samples == 0:
            raise ValueError("the probe has no examples; give at least one input")
        if len(self.sample_ids) == 0:
            object.__setattr__(self, "sample_ids", np.arange(n_samples, dtype=np.int64))
        for name in ("targets", "labels", "sample_ids"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, make_column(name, values, n_samples))
        self._check_numbers()
        object.__setattr__(self, "sample_ids", self.sample_ids.astype(np.int64))
        for name in ("feature_names", "vocabulary"):
            # callers pass lists and arrays as well, but a record in a checkpoint is a tuple
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        self._check_feature_names()
        self._check_window()
        self._order_rows()
        self._check_vocabulary()

    def _check_types(self) -> None:
        for name in ("inputs", "targets", "sample_ids", "labels"):
            values = getattr(self, name)
            if values is not None and not isinstance(values, np.ndarray):
                raise TypeError(
                    f"the probe's '{name}' must be a NumPy array; got {type(values).__name__}. Pass"
                    " np.asarray(...) of it."
                )
            if values is not None and values.ndim == 0:
                raise ValueError(
                    f"the probe's '{name}' must have one row an example; got a single value"
                )

    def _check_numbers(self) -> None:
        for name in ("inputs", "targets", "labels"):
            values = getattr(self, name)
            if values is not None:
                check_numbers(name, values)
        ids = self.sample_ids
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"sample_ids must be {_IDS}; got dtype {ids.dtype}")
        wrong = (ids < 0) | (ids > _LARGEST_ID)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"sample_ids must be {_IDS}; got {ids[row]} in row {row}")
        if (
            self.labels is not None
            and np.issubdtype(self.targets.dtype, np.integer)
            and not np.issubdtype(self.labels.dtype, np.integer)
        ):
            raise ValueError(
                f"labels must be integers where the targets are ({self.targets.dtype}); got dtype"
                f" {self.labels.dtype}"
            )

    def _order_rows(self) -> None:
        """Sorts all arrays by sample id."""
        # Sorting copies the inputs, which mapped inputs must be spared: so only if it is needed.
        order = np.argsort(self.sample_ids, kind="stable")
        if np.any(np.diff(self.sample_ids[order]) == 0):
            raise ValueError("sample_ids of the probe must be unique; some stand twice")
        if np.any(np.diff(order) < 0):
            for name in ("inputs", "targets", "sample_ids", "labels"):
                values = getattr(self, name)
                if values is not None:
                    object.__setattr__(self, name, values[order])

    def _check_feature_names(self) -> None:
        names, shape = self.feature_names, self.inputs.shape
        if names and (len(shape) != 2 or len(names) != shape[1]):
            wanted = (
                f"{shape[1]} names"
                if len(shape) == 2
                else "none: only a table has them, whose inputs are [N, d]"
            )
            raise ValueError(
                f"feature_names of inputs of shape {shape} must be {wanted}; got {len(names)}:"
                f" {', '.join(names[:5])}"
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(
                f"feature_names must be unique; '{twice[0]}' stands {names.count(twice[0])} times"
            )

    def _check_window(self) -> None:
        if self.window is not None:
            object.__setattr__(self, "window", check_window(self.window))

    def _check_vocabulary(self) -> None:
        n_words = len(self.vocabulary)
        if n_words == 0:
            return
        if self.feature_names:
            raise ValueError(
                "feature_names are of tables and a vocabulary is of texts; give the probe one of"
                " them, not both"
            )
        if self.inputs.ndim != 2 or self.inputs.dtype.kind not in "iuf" or self.packing is not None:
            got = (
                "several inputs"
                if self.packing is not None
                else f"inputs of shape {self.inputs.shape} and dtype {self.inputs.dtype}"
            )
            raise ValueError(
                f"a vocabulary is of texts, whose inputs are token ids [N, T]; got {got}"
            )
        for first, block in self._blocks(0, len(self)):
            # Every comparison with NaN is false, so this form finds that NaN has no word either.
            has_no_word = ~((block >= 0) & (block < n_words) & (block == np.floor(block)))
            if has_no_word.any():
                row, place = np.argwhere(has_no_word)[0].tolist()
                raise ValueError(
                    f"the vocabulary has {n_words} words, of token ids 0 to {n_words - 1}; sample"
                    f" id {self.sample_ids[first + row]} has token id {block[row, place]:.12g}."
                    " Give the vocabulary that made the ids."
                )

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the inputs of rows `start` to `stop` in blocks, each with its first row.

        Inputs may be mapped, and larger than memory.
        """
        step = max(1, _BLOCK_BYTES // max(1, self.inputs[:1].nbytes))
        for first in range(start, stop, step):
            yield first, self.inputs[first : min(first + step, stop)]

    @classmethod
    def of_several(
        cls,
        inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray],
        targets: np.ndarray,
        sample_ids: np.ndarray | None = None,
        *,
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] = (),
        feature_names: tuple[str, ...] = (),
    ) -> "Probe":
        """Packs the inputs of a model that takes several into rows of float32, and makes a probe.

        The rows are a copy. A vocabulary is not possible, because it would not say which input it
        belongs to.

        Args:
            inputs: arrays `[N, ...]` by the names that the model knows them by, or in its order.
            targets: class ids, or values for a regression, `[N]`.
            sample_ids: unique whole numbers from 0 on, `[N]`; `arange(N)` if left out.
            labels: labels of the data set, `[N]`, if they differ from the targets.
            class_names: names of the classes, for people.
            feature_names: names of all values of a row. If left out and every input is one value or
                a vector, they are made of the inputs' names: `age`, `history[0]`, `history[1]`.

        Raises:
            TypeError: if inputs, targets, sample ids or labels are no NumPy array.
            ValueError: if `Probe` refuses the values, or whole numbers are too large for float32.

        Example:
            >>> several = {"age": np.array([41, 35]), "history": np.array([[1.0, 2.0], [3.0, 4.0]])}
            >>> Probe.of_several(several, np.array([1, 0])).feature_names
            ('age', 'history[0]', 'history[1]')
        """
        rows, packing = pack(inputs)
        ids = np.empty(0, np.int64) if sample_ids is None else sample_ids
        return cls(
            rows,
            targets,
            ids,
            labels,
            class_names,
            tuple(feature_names) or packing.feature_names,
            packing=packing,
        )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def facts(self) -> ProbeFacts:
        """Shape, dtype and names of the inputs, and what the probe says of how they are drawn."""
        return ProbeFacts(
            self.inputs.shape[1:],
            self.inputs.dtype,
            self.feature_names,
            self.vocabulary,
            self.packing,
            None if self.window is None else check_window(self.window),
            self.kind,
        )

    def check_finite(self, start: int, stop: int) -> None:
        """Checks that the inputs of rows `start` to `stop` are finite in float32.

        Raises:
            ValueError: if they are not; it names the first sample.

        Example:
            >>> probe.check_finite(0, len(probe))
        """
        if not np.issubdtype(self.inputs.dtype, np.floating):
            return
        bad: list[int] = []
        for first, block in self._blocks(start, stop):
            # Everything is computed in float32, where a float64 beyond its range is an infinity.
            with np.errstate(over="ignore"):
                finite = np.isfinite(block.astype(np.float32, copy=False)).all(
                    axis=tuple(range(1, block.ndim))
                )
            bad += (first + np.flatnonzero(~finite)).tolist()
        if bad:
            raise ValueError(
                f"the probe's inputs must be finite in float32; {len(bad)} of {stop - start} rows"
                f" are not, the first with sample id {int(self.sample_ids[bad[0]])}. Clean or drop"
                " these rows."
            )


@dataclass(frozen=True, slots=True)
class Data:
    """Holds what the `load` of a model recipe returns.

    Args:
        train: inputs `[m, ...]` and targets `[m]`, the same on every rank; each rank trains on its
            share.
        validation: inputs and targets that metrics are evaluated on after each epoch.
        probe: examples that are explained.
        batch_size: number of examples in one rank's batch.

    Example:
        >>> data = Data(train=(inputs, targets), validation=(inputs, targets), probe=probe)
        >>> data.batch_size
        32
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    probe: Probe
    batch_size: int = 32
