"""Read audio: any file or array to a mono waveform, in windows, with damage reported."""

from align.audio.files import AudioError, AudioWarning
from align.audio.waveform import read, windows

__all__ = ["AudioError", "AudioWarning", "read", "windows"]
