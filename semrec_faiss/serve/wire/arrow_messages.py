"""Messages of an Arrow stream before they are read: one whose buffers are compressed may hold more than any memory."""

from __future__ import annotations

import struct

import pyarrow as pa

from semrec_faiss.serve.wire.problems import Refused

HEADER, COMPRESSION = 2, 3
"""Places of a Message's header and of a RecordBatch's compression in their flatbuffers' tables."""

DICTIONARY_DATA = 1
"""Place of the RecordBatch of a DictionaryBatch."""


def refuse_compressed(body: bytes) -> None:
    """Look at every message's head; nothing is decoded, and pyarrow has checked that the head is whole.

    47 kB that hold zeros took 1.5 GB, and all callers waited six seconds.

    Raises:
        Refused: buffers are compressed (415).
        pyarrow.ArrowException: it is no Arrow stream.
    """
    for message in pa.ipc.MessageReader.open_stream(body):
        head = message.metadata.to_pybytes()
        table = _member(head, struct.unpack_from("<I", head)[0], HEADER)
        if message.type == "dictionary":
            table = _member(head, table, DICTIONARY_DATA)
        if message.type in ("record batch", "dictionary") and _member(head, table, COMPRESSION):
            raise Refused(
                415,
                "the Arrow stream's buffers are compressed; this service takes those that are not",
                fix="write it without IpcWriteOptions(compression=...)",
                headers={"accept-encoding": "identity"},
            )


def _member(data: bytes, table: int, place: int) -> int:
    """Return where a table of a flatbuffer has another one as a member; 0 where it has none."""
    if not table:
        return 0
    names = table - int(struct.unpack_from("<i", data, table)[0])
    at = 4 + 2 * place
    offset = struct.unpack_from("<H", data, names + at)[0] if at < struct.unpack_from("<H", data, names)[0] else 0
    return table + offset + int(struct.unpack_from("<I", data, table + offset)[0]) if offset else 0
