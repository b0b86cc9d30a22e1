"""``python -m detmetrics``."""

from detmetrics.cli import main

main()
