"""The app's options: each field is a flag of `python app.py`, and the default's place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class AppArguments:
    """Where models lie, what a visitor may ask for, and where the page is served."""

    models_dir: str = field(
        default="models", metadata={"help": "folder in which bases, encoders and adapters lie"}
    )
    runs_dir: str = field(
        default="runs", metadata={"help": "folder of your own trainings, looked through as well"}
    )
    base_model: str = field(default="mini", metadata={"help": "base chosen at the start"})
    encoder: str | None = field(
        default=None,
        metadata={"help": "encoder chosen at the start; the miniature's own if not given"},
    )
    adapter: str | None = field(
        default=None, metadata={"help": "adapter chosen at the start; none if not given"}
    )
    allow_hub: bool = field(
        default=True, metadata={"help": "visitors may name models of the Hugging Face hub"}
    )
    max_loaded_models: int = field(
        default=2, metadata={"help": "pairs of base and encoder kept in memory"}
    )
    max_audio_s: float = field(default=60.0, metadata={"help": "longest sound, in seconds"})
    max_upload_mb: float = field(default=25.0, metadata={"help": "largest file, in megabytes"})
    max_images: int = field(default=4, metadata={"help": "pictures drawn at once"})
    max_inference_steps: int = field(default=50, metadata={"help": "denoising steps a picture"})
    max_prompt_length: int = field(default=300, metadata={"help": "characters of a text"})
    max_generation_s: float = field(default=600.0, metadata={"help": "longest drawing, in seconds"})
    max_queue_size: int = field(
        default=32, metadata={"help": "requests that may wait in the queue"}
    )
    max_history: int = field(default=24, metadata={"help": "pictures a visitor's history keeps"})
    server_name: str | None = field(
        default=None,
        metadata={"help": "address to serve at: 0.0.0.0 for all; else $GRADIO_SERVER_NAME, or own"},
    )
    server_port: int | None = field(
        default=None, metadata={"help": "port; else $GRADIO_SERVER_PORT, or the first free one"}
    )

    def __post_init__(self) -> None:
        for name in ("kept", "max_pictures", "max_steps", "max_waiting", "max_history", "max_text"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}: give at least 1")
        for name in ("max_sound_s", "max_upload_mb", "max_draw_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} is {getattr(self, name)}: give more than 0")
