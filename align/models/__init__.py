"""The audio prompt encoder: backbone, adapter, head, retrieval memory, processor."""
