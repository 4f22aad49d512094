"""The programs that run in the guest, one folder each, and what the host knows of them."""
