"""A program that puts pages of its own into states in which a fault, or mbind() by MPOL_MF_LAZY, must not move them, and
tells what it saw of them before and afterwards. `refusals CASE` prints an object of JSON (main.c says what is in it).
"""
