"""Audio adapters: the level projector, audio attention and attaching them to a UNet."""
