"""``python -m fastagi``: the command `fastagi`."""

from fastagi.cli import main

if __name__ == "__main__":
    main()
