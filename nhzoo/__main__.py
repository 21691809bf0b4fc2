"""`python -m nhzoo`: the command line."""

from nhzoo.cli.app import main

if __name__ == "__main__":
    main()
