"""SoundPrompt: generate images from sound with Stable Diffusion."""

__version__ = "0.1.0"
