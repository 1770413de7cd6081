"""Entry points: argv, environment, process group, signals, exit codes. One file, one command."""

import os

from launch.parent import die_with_parent

if os.environ.keys() & {"TORCHELASTIC_RUN_ID", "CROSS_RANK"}:
    # Workers of torchrun and of DeepSpeed's launcher live on without it. Said now, since a worker imports torch for
    # seconds before it does anything.
    die_with_parent()
