"""Making a guest that was forked from another's memory somebody else: its name, its time, and what it will guess.

Two guests that go on from one snapshot would otherwise draw the same random numbers.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time

RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
"""ioctls of /dev/random (random(4), include/uapi/linux/random.h)."""
RANDOM = "/dev/random"


def become(host: str, realtime_ns: int, entropy: bytes) -> None:
    """Take that name and that time, and mix the entropy into the kernel's pool. Raises OSError."""
    socket.sethostname(host)
    time.clock_settime_ns(time.CLOCK_REALTIME, realtime_ns)
    fd = os.open(RANDOM, os.O_WRONLY)
    try:
        # struct rand_pool_info: bits of entropy, bytes that follow.
        fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", 8 * len(entropy), len(entropy)) + entropy)
        # Else the kernel's generator takes note of it within a minute only.
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)
