"""The machine as data: its topology, and the QEMU command line that makes it."""
