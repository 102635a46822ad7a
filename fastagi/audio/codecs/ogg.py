"""Writing of Ogg pages (RFC 3533): packets of one logical stream into a file."""

from __future__ import annotations

import struct
import zlib

from fastagi.audio.output import Counter, Output

_BEGIN, _END = 2, 4
_HEAD = "<4sBBqIII"
_SERIAL = 1
"""Serial number of the one stream in a file. A constant gives the same file for the same recording."""

_MOST_SEGMENTS = 255
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: zlib's with the order of bits reversed, and nothing inverted."""
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_MIRRORED), "big")


class OggPages:
    """Collect packets and write them in pages.

    :param most_packets: of a page
    """

    def __init__(self, output: Output | Counter, most_packets: int) -> None:
        self._output = output
        self._most = most_packets
        self._number = 0
        self._lacing = bytearray()
        self._packets: list[bytes] = []
        self._granule = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the page that is not written yet."""
        if not self._packets:
            return 0
        return struct.calcsize(_HEAD) + 1 + len(self._lacing) + sum(map(len, self._packets))

    def add(self, packet: bytes, granule: int) -> None:
        """Append a packet of less than 64 kB; `granule` is the position at its end."""
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        if len(self._packets) >= self._most or len(self._lacing) + len(lacing) > _MOST_SEGMENTS:
            self.flush()
        self._lacing += lacing
        self._packets.append(packet)
        self._granule = granule

    def flush(self, last: bool = False) -> None:
        """Write the page.

        :param last: no page follows
        """
        flags = (0 if self._number else _BEGIN) | (_END if last else 0)
        head = struct.pack(_HEAD, b"OggS", 0, flags, self._granule, _SERIAL, self._number, 0)
        page = head + bytes([len(self._lacing)]) + bytes(self._lacing) + b"".join(self._packets)
        self._output.write(page[:22] + checksum(page).to_bytes(4, "little") + page[26:])
        self._number += 1
        self._lacing.clear()
        self._packets.clear()
