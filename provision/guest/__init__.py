"""The running guest: accelerator, console, monitor, network, and the guest itself."""
