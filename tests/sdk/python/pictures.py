"""Decodes the PNG images of plots without a library, so that it works in every SDK's environment."""

import struct
import zlib

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


class Picture:
    """Width, height, and the rows of pixels, each pixel a tuple of its channels."""

    def __init__(self, data):
        assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
        chunks = list(_chunks(data))
        assert chunks[0][0] == b"IHDR" and chunks[-1][0] == b"IEND"
        self.width, self.height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
        assert (depth, interlaced) == (8, 0) and colour in CHANNELS
        raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        self.rows = list(_rows(raw, self.width, self.height, CHANNELS[colour]))

    def colours(self):
        return {pixel for row in self.rows for pixel in row}


def _chunks(data):
    at = 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + body), f"chunk {kind} is damaged"
        yield kind, body
        at += 12 + length


def _rows(raw, width, height, channels):
    line = width * channels
    assert len(raw) == height * (line + 1)
    above = bytearray(line)
    for start in range(0, len(raw), line + 1):
        current = bytearray(raw[start + 1 : start + 1 + line])
        _unfilter(raw[start], current, above, channels)
        yield list(zip(*[iter(current)] * channels))
        above = current


def _unfilter(kind, current, above, channels):
    for at in range(len(current) if kind else 0):
        left = current[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        guess = (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))[kind]
        current[at] = (current[at] + guess) & 255


def _paeth(left, above, corner):
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))
