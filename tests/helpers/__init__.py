"""Helpers shared by tests: stand-ins of servers, tiny pipelines, runs of commands."""
