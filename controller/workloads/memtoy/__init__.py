"""memtoy: the workload that defines, places, touches, moves and locates memory by script.

The C files of this folder are the program (`gcc -static -O2 -std=gnu11 -Wall -Wextra -Werror -o memtoy *.c`);
`script` reads and checks a script before a guest is started, `output` reads what `memtoy -j` wrote, and
`scripts/` holds the scripts of the demo.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES: tuple[Path, ...] = tuple(sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")]))
SCRIPTS = FOLDER / "scripts"
