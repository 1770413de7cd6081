"""Entry points: argv, environment, process group, signals, exit codes. One file, one command."""
