"""A program that asks the kernel where it moves pages that are touched after they were unmapped lazily, and where it takes
fresh ones from, for combinations of memory policy, cpuset and CPU (`combinations`), and what is to be said of its answers
(`judge`). The fresh pages are the oracle: both are to be the same node.
"""
