"""`python -m finetrail`: the same as the command `finetrail`."""

from finetrail.cli import main

if __name__ == "__main__":
    main()
