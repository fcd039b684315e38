from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.written_shards import Written
from hvd_xai.ranks.world import World
from hvd_xai.recording.merge import merge
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.recording.written_part import from_message, to_message, write_part
from hvd_xai.storage.durable import FileEntry
from tests.checkpoint.small import begin, make_attributions, make_rows


def test_what_was_written_arrives_as_it_was_sent() -> None:
    written = Written((FileEntry("a/c/0", 12, "0" * 32), FileEntry("b", 3, "f" * 32)), 4, 5)
    assert from_message(to_message(written)) == written


def test_a_part_is_written_where_the_checkpoint_is_staged(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(12, (3,)))
    writer = begin(tmp_path, rows)
    with RowBuffer(rows.dtype) as buffer:
        buffer.append(rows)
        merged = merge(World.alone(), buffer, {})
        assert write_part(writer._header, merged, writer.staged, writer) == Written((), 0, 0)
        merged.close()
    committed = Explanation(writer.commit())
    np.testing.assert_array_equal(committed.rows(), rows)
