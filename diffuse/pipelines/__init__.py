"""Generate, edit and animate with a base pipeline and an audio adapter."""
