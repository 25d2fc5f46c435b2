"""Options: dataclasses, their command line, and recipes."""
