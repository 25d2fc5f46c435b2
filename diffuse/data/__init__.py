"""Audio-image pairs: tables, images, latents."""
