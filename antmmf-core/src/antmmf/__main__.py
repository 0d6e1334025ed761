"""``python -m antmmf`` is the same as ``antmmf``."""

from antmmf.cli.main import main

if __name__ == "__main__":
    main()
