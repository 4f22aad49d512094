"""The program whose ordinary swap faults are counted (main.c); the bench compiles it on the host and puts it into the guest."""
