"""TFRecord files: a row of byte strings, each with its length and checksums.

A record is, in little-endian byte order: the length of its data (uint64), the masked CRC-32C of those 8
bytes (uint32), the data, the masked CRC-32C of the data (uint32). A checksum c is masked by rotating it right
by 15 bits and adding 0xa282ead8.
"""

import struct
from pathlib import Path
from typing import Callable, Iterator

from nasbench_dataset import InputError
from nasbench_dataset.sources import open_source

CHUNK = 1 << 22  # bytes read at a time
LONGEST = 1 << 20  # bytes of data; records of NAS-Bench-101 have about 400
_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")


def _checksum_function() -> Callable[[bytes], int]:
    try:
        from google_crc32c import value
    except ImportError as error:
        raise InputError("checksums of tfrecord files need google-crc32c; run: pip install google-crc32c") from error
    return value


def _mask(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: str | Path, saw: Callable[[bytes], None] = lambda chunk: None) -> Iterator[bytes]:
    """The data of all records, in order, with at most a few megabytes in memory.

    Parameters
    ----------
    path : path
    saw : callable
        Told of every chunk of the file as it is read, for a progress bar or a digest of the whole.

    Raises
    ------
    InputError
        If it cannot be read, a checksum is wrong, a record claims to be longer than any can be, or the file
        ends within a record.
    """
    checksum = _checksum_function()
    number, position, buffer, start = 1, 0, b"", 0
    for chunk in _chunks(path):
        saw(chunk)
        buffer, start = buffer[start:] + chunk, 0
        while len(buffer) >= start + _HEADER.size:
            length, masked = _HEADER.unpack_from(buffer, start)
            if _mask(checksum(buffer[start : start + 8])) != masked or length > LONGEST:
                raise _damaged(path, number, position, "its length is damaged")
            data_start = start + _HEADER.size
            data_end = data_start + length
            if len(buffer) < data_end + _CHECKSUM.size:
                break
            data = buffer[data_start:data_end]
            if _CHECKSUM.unpack_from(buffer, data_end)[0] != _mask(checksum(data)):
                raise _damaged(path, number, position, "its checksum does not fit its data")
            yield data
            number += 1
            position += data_end + _CHECKSUM.size - start
            start = data_end + _CHECKSUM.size
    if len(buffer) > start:
        raise _damaged(path, number, position, "the file ends within it")


def _chunks(path: str | Path) -> Iterator[bytes]:
    try:
        with open_source(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _damaged(path: str | Path, number: int, position: int, what: str) -> InputError:
    return InputError(f"{path}: record {number:,}, at byte {position:,}: {what}; fetch the file again")
