"""Start the web app: `python app.py [--option value ...]`; `--help` lists the options."""

from soundprompt.app.__main__ import run

if __name__ == "__main__":
    run("python app.py")
