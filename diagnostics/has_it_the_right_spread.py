"""Has it the right spread? Draws against the reference that the run stores, or its temperature alone."""

import sys

from sgworld_numpyro.diagnostics.has_it_the_right_spread import main

if __name__ == "__main__":
    sys.exit(main())
