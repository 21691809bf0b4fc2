"""`python -m nhzoo`: the command line."""

from nhzoo.cli import main

if __name__ == "__main__":
    main()
