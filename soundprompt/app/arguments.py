"""Options of the web app."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class AppArguments:
    """Models, limits and server options of the web app."""

    models_dir: str = field(
        default="models", metadata={"help": "Folder with base models, encoders and adapters."}
    )
    runs_dir: str = field(
        default="runs", metadata={"help": "Folder with your training runs, searched as well."}
    )
    base_model: str = field(default="mini", metadata={"help": "Initially selected base model."})
    encoder: str | None = field(
        default=None,
        metadata={"help": "Initially selected encoder. Defaults to the mini encoder."},
    )
    adapter: str | None = field(
        default=None, metadata={"help": "Initially selected adapter. Defaults to none."}
    )
    allow_hub: bool = field(
        default=True, metadata={"help": "Let visitors enter Hugging Face Hub ids."}
    )
    max_loaded_models: int = field(
        default=2, metadata={"help": "Maximum number of pipelines kept in memory."}
    )
    max_audio_s: float = field(default=60.0, metadata={"help": "Maximum audio length in seconds."})
    max_upload_mb: float = field(default=25.0, metadata={"help": "Maximum upload size in MB."})
    max_images: int = field(default=4, metadata={"help": "Maximum number of images per request."})
    max_inference_steps: int = field(
        default=50, metadata={"help": "Maximum number of denoising steps."}
    )
    max_prompt_length: int = field(
        default=300, metadata={"help": "Maximum prompt length in characters."}
    )
    max_generation_s: float = field(
        default=600.0, metadata={"help": "Maximum generation time in seconds."}
    )
    max_queue_size: int = field(default=32, metadata={"help": "Maximum number of queued requests."})
    max_history: int = field(
        default=24, metadata={"help": "Maximum number of images in a visitor's history."}
    )
    server_name: str | None = field(
        default=None,
        metadata={
            "help": "Address to serve on; 0.0.0.0 for all interfaces. Defaults to "
            "$GRADIO_SERVER_NAME or localhost."
        },
    )
    server_port: int | None = field(
        default=None,
        metadata={"help": "Port. Defaults to $GRADIO_SERVER_PORT or the first free port."},
    )

    def __post_init__(self) -> None:
        for name in (
            "max_loaded_models", "max_images", "max_inference_steps", "max_queue_size",
            "max_history", "max_prompt_length",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}: give at least 1")
        for name in ("max_audio_s", "max_upload_mb", "max_generation_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} is {getattr(self, name)}: give more than 0")
