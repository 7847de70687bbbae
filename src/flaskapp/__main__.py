"""Run the command line by `python -m flaskapp`."""

from flaskapp.cli import main

main()
