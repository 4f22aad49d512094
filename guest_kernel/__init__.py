"""Kernels: the source, the patch series, the configuration and the build."""
