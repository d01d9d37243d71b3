"""A BPF ring buffer as it lies in memory (kernel/bpf/ringbuf.c): mapped, waited for, read without a system call.

Needs no privilege: whoever was handed the map's descriptor can map it, the kernel lets it write the consumer's page only.
"""

from __future__ import annotations

import mmap
import struct

_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")
_BUSY = 1 << 31
_DISCARD = 1 << 30
_HEADER_BYTES = 8


class Ring:
    """fd: of the map, waited on with epoll; stays the caller's. size_bytes: the map's max_entries."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self._mask = size_bytes - 1
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        # The data pages are mapped twice in a row, so that a record that wraps can be read in one piece.
        self._producer = mmap.mmap(fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._data_at = page
        self._position: int = _POSITION.unpack_from(self._consumer)[0]

    @property
    def memory(self) -> mmap.mmap:
        """What the numbers of `take` index."""
        return self._producer

    def take(self, at_most: int) -> list[int]:
        """Where the next records' payloads begin in `memory`. They stay until `release`."""
        memory, mask, data_at = self._producer, self._mask, self._data_at
        length_at = _LENGTH.unpack_from
        end: int = _POSITION.unpack_from(memory)[0]
        position, found = self._position, list[int]()
        append = found.append
        while position < end and at_most:
            at = data_at + (position & mask)
            length: int = length_at(memory, at)[0]
            if length & _BUSY:  # reserved, and not submitted yet
                break
            if not length & _DISCARD:
                append(at + _HEADER_BYTES)
                at_most -= 1
            position += ((length & ~_DISCARD) + _HEADER_BYTES + 7) & ~7
        self._position = position
        return found

    def release(self) -> None:
        """Give back everything taken so far."""
        _POSITION.pack_into(self._consumer, 0, self._position)

    def unread_bytes(self) -> int:
        end: int = _POSITION.unpack_from(self._producer)[0]
        return end - self._position

    def fill(self) -> float:
        """How much of it is unread, 0 to 1."""
        return self.unread_bytes() / (self._mask + 1)

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
