"""Web app that generates images from audio."""
