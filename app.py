"""The page: `python app.py [--option value ...]`; `--help` lists the options."""

from studio.__main__ import main

if __name__ == "__main__":
    main(command="python app.py")
