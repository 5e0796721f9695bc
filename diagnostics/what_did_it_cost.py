"""What did it cost? Gradients, passes over the data, and effective draws for them."""

import sys

from sgworld_numpyro.diagnostics.what_did_it_cost import main

if __name__ == "__main__":
    sys.exit(main())
