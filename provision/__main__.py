"""``python -m provision``, and the installed command: the command line."""

from provision import interrupts

interrupts.end_quietly()

from provision.cli.program import main  # noqa: E402  # loading it takes a while

if __name__ == "__main__":
    main()
