"""``python -m vistrim``: the command line."""

from vistrim.cli import main

if __name__ == "__main__":
    main()
