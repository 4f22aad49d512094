"""Our own speed, beside a peer's, measured in one run."""
