"""Entry points: argv, environment, process group, signals, exit codes. One file, one command."""

import os

from launch.parent import die_with_parent

if "TORCHELASTIC_RUN_ID" in os.environ:
    # torchrun's workers live on without it; said now, since a worker imports torch for seconds before it does anything.
    die_with_parent()
