"""A program that takes steps on one file, or shared memory, and one mapping of it: placing its page cache, mapping, touching,
looking where its pages are, and racing with truncation and invalidation.

A step an argument, in order: `filefault node=1 open=/mnt/file pages=8 write node=- map=shared mbind=2 touch where`. Each
prints a line of JSON.
"""
