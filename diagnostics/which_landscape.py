"""Which landscape does it sample? That of the posterior, or the effective one that subsampling makes of it."""

import sys

from sgworld_numpyro.diagnostics.which_landscape import main

if __name__ == "__main__":
    sys.exit(main())
