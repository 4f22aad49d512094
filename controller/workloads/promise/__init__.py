"""Small programs that show what a patch of the series promises; see `main.c`."""
