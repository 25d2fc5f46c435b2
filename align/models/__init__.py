"""The audio prompt encoder: backbone, adapter, heads, retrieval memory and processor."""
