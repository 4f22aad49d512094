"""A running guest: its console, monitor, network and life."""
