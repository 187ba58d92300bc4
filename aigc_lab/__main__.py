"""`python -m aigc_lab`: the console script, for torchrun and for wherever it is not on the path."""

from aigc_lab.cli import main

if __name__ == "__main__":
    main()
