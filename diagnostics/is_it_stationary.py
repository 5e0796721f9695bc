"""Is it stationary? Do the chains agree, has the run stopped drifting, and is it long enough to tell?"""

import sys

from sgworld_numpyro.diagnostics.is_it_stationary import main

if __name__ == "__main__":
    sys.exit(main())
