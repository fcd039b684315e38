"""Export formats: each module here is one format, and is found by standing here.

A module defines `SUFFIX`, the ending of the files' names, such as `".npz"`, and
`write(stacks, destination, progress)`, which writes explanations into a file that does not exist
yet. It reads them block by block (`hvd_xai.checkpoint.export_blocks`), so that memory stays
bounded, and calls `progress.advance` with the number of rows after each block. It does not stage:
the file gets its name once it is whole. The library of a format is imported inside `write`.
"""
