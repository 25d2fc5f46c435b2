"""Option dataclasses, their command line parser, and recipes."""
