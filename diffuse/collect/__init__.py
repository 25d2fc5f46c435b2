"""Collectors: each gathers recordings with pictures or captions into a folder with metadata.csv.

One command each: `python -m diffuse.collect.jamendo`, `.vggsound`, `.audiocaps`, `.videos`. The
folder they fill is what `align.train --dataset` and `diffuse.train --dataset` read. A collector that is
stopped goes on where it was when it is called again.
"""
