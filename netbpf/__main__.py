"""``python -m netbpf`` is the command line."""

import sys

from netbpf.cli.main import main

sys.exit(main())
