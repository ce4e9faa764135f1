"""``python -m tlkit`` is the ``tlkit`` command."""

from tlkit.cli.app import main

if __name__ == "__main__":
    main()
