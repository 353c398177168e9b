"""What the print sink's changelog leaves."""

import re
import sys

CHANGE = re.compile(r"(\+I|-U|\+U|-D)\[(.*)\]$")


def final_rows(lines, keys):
    """How many changes there are, and the rows that are left, sorted; a row's first `keys` columns are its key."""
    rows, count = {}, 0
    for line in lines:
        change = CHANGE.search(line.rstrip("\n"))
        if not change:
            # ENGINE_S and CHECKPOINTS of the job, and whatever it has to say.
            sys.stdout.write(line)
            continue
        count += 1
        values = change.group(2).split(", ")
        key = tuple(values[:keys])
        if change.group(1) in ("+I", "+U"):
            rows[key] = values
        elif change.group(1) == "-D":
            rows.pop(key, None)
    return count, [rows[key] for key in sorted(rows)]
