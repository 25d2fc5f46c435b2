"""Talking to the Hugging Face hub: what goes wrong there, said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from align.registry import first_line

CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class HubError(ValueError):
    """The hub did not do what was asked; the message says why and what to do."""


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turns what the hub's client raises about a repository into a `HubError`.

    Args:
        name: the repository asked for.
    """
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise HubError(
            f"{name} is on the hub and HF_HUB_OFFLINE is set: unset it where there is a network"
        ) from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{name} is gated: accept its terms at {constants.ENDPOINT}/{name}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"there is no repository {name!r} at {constants.ENDPOINT}, or your token may not see it"
        ) from error
    except errors.HFValidationError as error:
        raise HubError(f"{name!r} is no repository's id: write OWNER/NAME") from error
    except errors.HfHubHTTPError as error:
        raise HubError(_refused_message(name, error)) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(_unreachable_message(name, error)) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in CLIENTS:
            raise
        raise HubError(_unreachable_message(name, error)) from error


def _refused_message(name: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"the hub refuses {name} with your token ({status}): log in with `hf auth login`, or "
            "set HF_TOKEN to a token that may write there"
        )
    return f"the hub did not take {name}: {first_line(error)}"


def _unreachable_message(name: str, error: Exception) -> str:
    from huggingface_hub import constants

    return (
        f"{name} is on the hub, and {constants.ENDPOINT} cannot be reached "
        f"({type(error).__name__}): try again with a network; what was fetched is kept"
    )
