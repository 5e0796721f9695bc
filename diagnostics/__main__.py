"""Ask one question of a saved run by its name, or all of them."""

import sys

from sgworld_numpyro.diagnostics.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
