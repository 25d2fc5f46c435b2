"""The page behind `app.py`: a sound goes in, pictures come out."""
