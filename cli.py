"""Run the command-line from a clone: `python cli.py classify ./photos`."""

from cascade.cli.main import main

if __name__ == "__main__":
    main()
