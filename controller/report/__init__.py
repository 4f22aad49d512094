"""From findings to what a person reads: terminal summary, annotated trace, HTML. Pure functions that return text."""
