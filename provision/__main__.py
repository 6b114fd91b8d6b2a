"""``python -m provision``: the command line, as the installed command has it."""

from provision.cli.program import main

main()
