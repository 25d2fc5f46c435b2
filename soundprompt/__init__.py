"""SoundPrompt: generate images from sound with Stable Diffusion."""
