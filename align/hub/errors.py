"""Errors of the Hugging Face Hub as one-line messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from align.registry import first_line

CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class HubError(ValueError):
    """A request to the Hub failed; the message explains why and what to do."""


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Convert errors of the Hub's client to a `HubError`.

    Args:
        name: Repository of the request.

    Raises:
        HubError: If the block raises an error of the client.
    """
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise HubError(
            f"{name} is on the Hub and HF_HUB_OFFLINE is set: unset it to access the network"
        ) from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{name} is gated: accept its terms at {constants.ENDPOINT}/{name}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"there is no repository {name!r} at {constants.ENDPOINT}, or your token has no access"
        ) from error
    except errors.HFValidationError as error:
        raise HubError(f"{name!r} is not a repository id: write OWNER/NAME") from error
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
            f"the Hub denies access to {name} with your token ({status}): log in with "
            "`hf auth login`, or set HF_TOKEN to a token with write access"
        )
    return f"the request for {name} to the Hub failed: {first_line(error)}"


def _unreachable_message(name: str, error: Exception) -> str:
    from huggingface_hub import constants

    return (
        f"{name} is on the Hub, and {constants.ENDPOINT} cannot be reached "
        f"({type(error).__name__}): try again with a network; downloaded files are kept"
    )
