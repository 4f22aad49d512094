"""From evidence to findings: pure functions over what a run recorded. Nothing here reads a guest or prints."""
