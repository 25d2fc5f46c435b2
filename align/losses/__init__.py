"""Losses of the alignment training."""
