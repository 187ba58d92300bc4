"""How often the verdicts are wrong: simulated cases of which the truth is known.

    python evaluation/calibrate.py stability              # half a minute
    python evaluation/calibrate.py stability --n 400      # quick
    python evaluation/calibrate.py collapse               # an hour; MNIST and captions if they are there
    python evaluation/calibrate.py collapse --data textures textures-random --n 20 --others 4    # three minutes
    python evaluation/calibrate.py collapse --data stacked --others 10    # an hour: 10,000 samples of 1,000 modes
    python evaluation/calibrate.py collapse --data stacked --n 20 --others 5 --size 20000    # half an hour: n decides
    python evaluation/calibrate.py collapse --data digits ring --n 300
    python evaluation/calibrate.py collapse --data shapes --n 20 --others 5    # forms: three minutes
    python evaluation/calibrate.py intervals              # two minutes

Prints how often each truth gets each verdict: of stability by the definitions' words and by the rules as they are, and
what the online alarm raises falsely and misses; and how often the intervals hold what they are of. Exits with 1 when
sound cases are misjudged more often, or injected faults found less often, than is promised.
"""

import argparse
import sys
from collections.abc import Sequence

from calibration.collapse import collapse
from calibration.intervals import intervals
from calibration.stability import stability

SECTIONS = ("stability", "collapse", "intervals")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--n", type=int, help="cases of each truth (default: 2000), or honest sets (default: 300)")
    parser.add_argument("--others", type=int, help="sets of each truth that is not honest (default: a tenth of --n)")
    parser.add_argument("--size", type=int, help="samples in a set (default: as many as is usual of the dataset)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", default=[], help="digits, ring, grid, shapes, mnist, captions, stacked, …")
    given = parser.parse_args(arguments)
    if given.section == "stability":
        bounds = stability(given.n or 2000, given.seed)
    elif given.section == "intervals":
        bounds = intervals(given.n or 2000, given.seed)
    else:
        count = given.n or 300
        bounds = collapse(count, given.others or max(count // 10, 10), given.seed, given.data, given.size)
    print("\n".join(map(str, bounds)))
    print(f"{sum(bound.kept for bound in bounds)} of {len(bounds)} promises kept")
    return 0 if all(bound.kept for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
