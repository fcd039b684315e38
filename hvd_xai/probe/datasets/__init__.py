"""Data set formats: each module here is one format, and is found by standing here.

A module defines what `hvd_xai.probe.dataset_format.Format` asks for:

- `ACCEPTS`, a phrase that tells users what to give, such as `".npz"`;
- `match(source)`, which says how surely an existing file or folder has this format, as a `Match`;
- `unpack(source, folder, hints)`, which writes `inputs.npy` and, if the data set has them,
  `targets.npy`, `labels.npy`, `sample_ids.npy` and lists of names into a folder, in bounded memory.
  `hvd_xai.probe.unpacked` writes such files.

A model may take several inputs. `hints.find_several(names)` says which of a data set's arrays they
are, and `hvd_xai.probe.unpacked.array_file` where each is written; they are packed afterwards.

The library of a format is imported inside `unpack`.
"""
