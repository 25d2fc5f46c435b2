"""The options of what a trained encoder's pictures are judged by."""

from __future__ import annotations

from dataclasses import dataclass, field

from align.names import JUDGES


@dataclass
class EvaluationArguments:
    """What is drawn and judged."""

    pictures: int = field(
        default=60, metadata={"help": "pictures drawn and judged at the end; 0 for none"}
    )
    judge: str = field(
        default="mini",
        metadata={"help": "who judges pictures: a name, or none"},
    )
    draw_steps: int = field(default=20, metadata={"help": "denoising steps a picture"})
    guidance: float = field(default=5.0, metadata={"help": "classifier-free guidance"})
    samples: int = field(
        default=10, metadata={"help": "unseen sounds drawn into samples.png; 0 for none"}
    )

    def __post_init__(self) -> None:
        for name, least in (("pictures", 0), ("samples", 0), ("draw_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is at least {least}, not {getattr(self, name)}")
        if self.judge != "none" and self.judge not in JUDGES:
            raise ValueError(
                f"there is no judge {self.judge!r}; there are: {', '.join(JUDGES)}, none"
            )
