"""The miniature: ten sounds, their pictures, and small real models trained on both."""
