"""The options of what is remembered: of how many captions, and how answers follow it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RecallArguments:
    """What an encoder, or a sound adapter, remembers."""

    recall: int = field(
        default=256,
        metadata={
            "help": "labels, captions or phrases whose embeds are remembered, if there are no more "
            "of them, to draw answers towards in use; 0 for none"
        },
    )
    recall_share: float = field(
        default=0.5, metadata={"help": "of what is remembered in an answer, above 0 to 1"}
    )
    recall_temperature: float = field(
        default=0.15, metadata={"help": "the colder, the more the nearest alone is followed"}
    )

    def __post_init__(self) -> None:
        for name in ("recall_share", "recall_temperature"):
            if not self.recall and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"--{name} does nothing here: --recall 0 remembers nothing")
        if self.recall < 0:
            raise ValueError(f"--recall is a number of labels, 0 for none, not {self.recall}")
        if not 0 < self.recall_share <= 1:
            raise ValueError(
                f"--recall_share is above 0 and at most 1, not {self.recall_share}: "
                "--recall 0 remembers nothing"
            )
        if self.recall_temperature <= 0:
            raise ValueError(f"--recall_temperature is above 0, not {self.recall_temperature}")
