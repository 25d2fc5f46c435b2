"""The page: a sound goes in, pictures come out."""
