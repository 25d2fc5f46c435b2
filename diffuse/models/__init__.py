"""The audio adapter: projector, gated attention processors, LoRA, and attaching them to a UNet."""
