"""`python -m optexp` is the console script `optexp`."""

import sys

from optexp.cli import main

sys.exit(main())
