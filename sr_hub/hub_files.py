"""Files of Hub repositories: fetched into the cache and checked; every fault one sentence."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The client's own HTTP library is httpx in its early and httpx2 in its later versions.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LIBRARY = "sr_hub"


@dataclass(frozen=True)
class HubOptions:
    """How to get at a repository.

    ``revision`` is a branch, tag, commit or ``refs/pr/N``, None for ``main``. ``token`` None takes that of
    the login, False none. ``cache_dir`` None takes that of ``HF_HOME``.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False

    def at_commit_of(self, file: Path) -> "HubOptions":
        """The same for exactly the commit that the cached ``file`` belongs to."""
        return replace(self, revision=commit_of(file) or self.revision)


def commit_of(file: Path) -> str | None:
    """The commit that a file in the cache belongs to."""
    return file.parent.name if re.fullmatch(r"[0-9a-f]{40}", file.parent.name) else None


def fetch(repo_id: str, file: str, hub: HubOptions) -> Path | None:
    """Path in the cache of a file of the repository; None where the repository has no such file.

    Raises:
        FileNotFoundError: If there is no such repository or revision.
        PermissionError: If the token or its owner is refused.
        ConnectionError: If the Hub cannot be reached or breaks off, and the cache does not hold the file.
        OSError: If there is no room in the cache.
        ValueError: If the content is not the one that the Hub names by its hash.
    """
    try:
        with one_sentence(f"{file} of {repo_id}", repo_id, hub.revision):
            found = hf_hub_download(
                repo_id,
                file,
                revision=hub.revision,
                token=hub.token,
                cache_dir=hub.cache_dir,
                local_files_only=hub.local_files_only,
                force_download=hub.force_download,
                library_name=_LIBRARY,
            )
    except LocalEntryNotFoundError as error:
        if _known_absent(repo_id, file, hub):
            return None
        raise ConnectionError(_unreachable(file, repo_id, hub, error)) from error
    except EntryNotFoundError:
        return None
    path = Path(found)
    _check_hash(path, repo_id)
    return path


def list_files(repo_id: str, hub: HubOptions) -> list[str]:
    """Names of a repository's files; none where that cannot be asked, as offline."""
    if hub.local_files_only or constants.HF_HUB_OFFLINE:
        return []
    with one_sentence(f"the list of files of {repo_id}", repo_id, hub.revision):
        return HfApi(token=hub.token, library_name=_LIBRARY).list_repo_files(repo_id, revision=hub.revision)


@contextmanager
def one_sentence(what: str, repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turns what ``huggingface_hub`` raises into built-in errors with a sentence that says what to do.

    Args:
        what: What is fetched or written, for the sentence.
        repo_id: Its repository.
        revision: Its revision.

    Raises:
        EntryNotFoundError: Unchanged, as it is no fault everywhere.
        FileNotFoundError, PermissionError, ConnectionError, OSError, ValueError: As `fetch`.
    """
    try:
        yield
    except EntryNotFoundError:  # and LocalEntryNotFoundError
        raise
    except GatedRepoError as error:
        raise PermissionError(
            f"{repo_id} is gated: ask for access on its page, then give a token that has it"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"no repository {repo_id} on the Hub, or it is private and the token does not open it"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no revision {revision or 'main'!r}") from error
    except LocalTokenNotFoundError as error:
        raise PermissionError(
            "a Hub token is needed: run `hf auth login`, set HF_TOKEN or give one"
        ) from error
    except HFValidationError as error:
        raise FileNotFoundError(
            f"a Hub repository must be user/name of letters, digits, '-', '_' and '.', got {repo_id!r}"
        ) from error
    except HfHubHTTPError as error:
        raise _of_status(error, what) from error
    except _HTTPError as error:
        raise ConnectionError(f"the connection to the Hub failed at {what}: {_first_line(error)}") from error
    except ConnectionError as error:
        raise ConnectionError(f"the Hub cannot be reached for {what}: {_first_line(error)}") from error
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OSError(f"no room on the disk of {constants.HF_HOME} for {what}") from error
        if isinstance(error, PermissionError):
            raise PermissionError(f"the cache must be writable for {what}: {error}") from error
        # Too few or too many bytes came.
        raise ConnectionError(f"{what} did not arrive whole: {_first_line(error)}") from error


def _of_status(error: HfHubHTTPError, what: str) -> OSError:
    status = error.response.status_code
    if status == 401:
        return PermissionError(f"the Hub does not accept the token for {what}: log in again or give another")
    if status == 403:
        reason = error.server_message or "the token has not the right for it"
        return PermissionError(f"the Hub forbids {what}: {reason}")
    if status == 412:
        return ConnectionError(f"someone else changed the repository meanwhile: repeat {what}")
    if status == 429:
        return ConnectionError(f"the Hub had too many requests to give {what}: wait and repeat")
    return ConnectionError(
        f"the Hub answered {status} to {what}: {error.server_message or _first_line(error)}"
    )


def _unreachable(file: str, repo_id: str, hub: HubOptions, error: LocalEntryNotFoundError) -> str:
    if hub.local_files_only or constants.HF_HUB_OFFLINE:
        return f"{file} of {repo_id} is not in the cache, and no connection is allowed (offline)"
    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return str(_of_status(cause, f"{file} of {repo_id}"))
    reason = _first_line(cause or error)
    return f"{file} of {repo_id} is not in the cache and the Hub cannot be reached: {reason}"


def _known_absent(repo_id: str, file: str, hub: HubOptions) -> bool:
    """Whether the cache notes that the repository has no such file."""
    found = try_to_load_from_cache(repo_id, file, cache_dir=hub.cache_dir, revision=hub.revision)
    return found is not None and not isinstance(found, str)


def _check_hash(path: Path, repo_id: str) -> None:
    """Compares a cached file with the hash that the Hub names it by, and drops it if they differ."""
    if not path.is_symlink():  # a file system without links: the cache keeps no hash
        return
    blob = Path(os.path.normpath(path.parent / os.readlink(path)))
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    else:
        return
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise ValueError(
            f"{path.name} of {repo_id} must have the hash {blob.name}, got {digest.hexdigest()}; it was "
            f"removed from the cache: try again"
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
