"""A machine: host tools, emulated hardware, the root file system, and the guest that runs on them."""
