"""The bytes of a pickle as a stream that knows runs of floats."""

from typing import BinaryIO

import numpy as np

_BLOCK = 4 << 20
_RUN = 1024
_FLOAT_OPCODE = ord("G")
_FRAME_OPCODE = 0x95
_FLOAT_RECORD = np.dtype([("opcode", "u1"), ("value", ">f8")])


class PickleStream:
    """The bytes of a pickle, buffered here so that runs of floats are seen without copying.

    Has the `read` and `readline` that `pickletools` asks of a file.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.buffer = b""
        self.position = 0
        self.passed = 0

    @property
    def offset(self) -> int:
        """Number of bytes taken so far."""
        return self.passed + self.position

    def fill(self, count: int) -> int:
        """Make `count` bytes available if the file has them; return how many are."""
        while len(self.buffer) - self.position < count:
            block = self.file.read(_BLOCK)
            if not block:
                break
            self.passed += self.position
            self.buffer = self.buffer[self.position :] + block
            self.position = 0
        return len(self.buffer) - self.position

    def read(self, count: int) -> bytes:
        """Take `count` bytes, fewer at the end of the file."""
        if count <= _BLOCK:
            self.fill(count)
        data = self.buffer[self.position : self.position + count]
        self.position += len(data)
        if len(data) == count or count <= _BLOCK:
            return data
        parts, missing = [data], count - len(data)
        while missing and (block := self.file.read(min(missing, _BLOCK))):
            parts.append(block)
            missing -= len(block)
            self.passed += len(block)
        return b"".join(parts)

    def readline(self) -> bytes:
        """Take one line of a text opcode (these are short: names and decimal numbers)."""
        wanted = 256
        while True:
            available = self.fill(wanted)
            end = self.buffer.find(b"\n", self.position)
            if end >= 0 or available < wanted:
                stop = end + 1 if end >= 0 else len(self.buffer)
                line = self.buffer[self.position : stop]
                self.position = stop
                return line
            wanted *= 2

    def peek(self) -> int | None:
        """Return the next byte without taking it."""
        return self.buffer[self.position] if self.fill(1) else None

    def floats(self) -> np.ndarray:
        """Take the run of float opcodes that starts here (frames between them are skipped): float64 ``[n]``."""
        runs = []
        while True:
            count = min(self.fill(9 * _RUN) // 9, _RUN)
            opcodes = np.frombuffer(self.buffer, np.uint8, 9 * count, self.position)[::9]
            others = np.flatnonzero(opcodes != _FLOAT_OPCODE)
            taken = int(others[0]) if len(others) else count
            runs.append(np.frombuffer(self.buffer, _FLOAT_RECORD, taken, self.position)["value"])
            self.position += 9 * taken
            following = self.peek()
            if following == _FRAME_OPCODE and self.fill(9) >= 9:
                self.position += 9
                following = self.peek()
            if following != _FLOAT_OPCODE or self.fill(9) < 9:
                return np.concatenate(runs)
