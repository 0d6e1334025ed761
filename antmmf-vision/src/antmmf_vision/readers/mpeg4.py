"""When the frames of MPEG-4 video (Xvid, DivX) are shown, by the packets alone: AVI stores no such times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream

_PICTURE = b"\x00\x00\x01\xb6"  # begins each coded picture; the first two bits after it say its kind
_BETWEEN = 2  # of the kinds: made from a picture before and one after it, and itself needed by none
_LEAST_BYTES = 12  # fewer stand for "as the one before", which decoders do not return


def unpacked(packets: Sequence[Packet[VideoStream]], stream: VideoStream) -> list[Packet[VideoStream]]:
    """The same pictures, one a packet: DivX puts two into one and next to nothing into the following."""
    if all(bytes(packet).count(_PICTURE) == 1 for packet in packets):
        return list(packets)
    try:
        split = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
        return [part for packet in (*packets, None) for part in split.filter(packet) if part.size]
    except (av.FFmpegError, ValueError):  # this FFmpeg lacks it, or it makes nothing of them
        return list(packets)


def shown_at(packets: Iterable[bytes]) -> list[int] | None:
    """The place of each packet's frame in the order in which frames are shown.

    None where the packets do not tell: some hold several pictures or none, or a first picture lacks what it needs.
    """
    order: list[int] = []
    held: int | None = None  # a picture that others need is shown when the next one of its kind comes
    num_needed = 0
    for number, packet in enumerate(packets):
        if len(packet) < _LEAST_BYTES or packet.count(_PICTURE) != 1:
            return None
        start = packet.index(_PICTURE) + len(_PICTURE)
        if packet[start : start + 1] and packet[start] >> 6 == _BETWEEN:
            if num_needed < 2:
                return None
            order.append(number)
            continue
        num_needed += 1
        if held is not None:
            order.append(held)
        held = number
    if held is None:
        return None
    places = [0] * (len(order) + 1)
    for place, number in enumerate([*order, held]):
        places[number] = place
    return places
