"""Collectors of training data: audio with images or captions, listed in metadata.csv.

The commands are `python -m diffuse.collect.jamendo`, `.vggsound`, `.audiocaps` and `.videos`. Their
output directories are datasets for `align.train --dataset` and `diffuse.train --dataset`. An
interrupted collection resumes when the command is run again.
"""
