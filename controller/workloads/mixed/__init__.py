"""mixed: processes that place, touch, page out, fork and die at random, and check contents all the while.

The C files of this folder are the program. `mixed --seconds N --migrations M --seed S [--processes P]` goes on until so
much time has passed and the kernel has counted so many migrations on fault; then it ends all that it started and says
in one line of JSON what was done. Status 0: both were reached, and no page had other contents than it should.
"""
