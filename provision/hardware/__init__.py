"""The emulated machine as data, and pure functions from that data to QEMU arguments."""
