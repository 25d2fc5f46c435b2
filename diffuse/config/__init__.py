"""Options of `diffuse.train` and training stages."""
