"""Probes on the kernel's page migration: programs, record format, registry, and the agent in the guest.

Nothing here imports anything of ours from outside `probes`, because the folder is copied into the guest as it is.
"""
