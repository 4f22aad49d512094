"""A program (control.c) that takes steps on one area of memory: policy, CPU, cgroup, touch; what its pages are then, it tells.

A step an argument, in order: `control map=8 cpu=1 fill lazy=2 touch where`. Each prints a line of JSON.
"""
