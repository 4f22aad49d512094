"""A program that times loads from memory of one node after the other."""
