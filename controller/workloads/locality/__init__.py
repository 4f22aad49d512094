"""locality: four kinds of work by which it shows on which node memory is.

The C files of this folder are the program; main.c's head has its options. The TOML files are what `mof work` knows by
name: cases with their sizes, CPUs and nodes.
"""
