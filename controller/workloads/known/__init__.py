"""A program that loads and stores as often as it is told."""
