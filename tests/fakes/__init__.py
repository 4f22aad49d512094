"""Stand-ins for what unit tests cannot have."""
