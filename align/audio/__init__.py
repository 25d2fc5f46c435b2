"""Read audio files and arrays as mono waveforms, whole or in windows."""

from align.audio.files import AudioError, AudioWarning
from align.audio.waveform import read, windows

__all__ = ["AudioError", "AudioWarning", "read", "windows"]
