"""Pushes a model's folder to the Hub: exactly the model's files, in one commit, after every check."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # named, not declared, there
from yaml import YAMLError

from sr_hub.config import TrainConfig
from sr_hub.hub_files import HubOptions, fetch, one_sentence
from sr_hub.licenses import check_license
from sr_hub.model_card import (
    CARD_FILE,
    CardOptions,
    is_blank,
    is_picture,
    is_rendered,
    license_of,
    pictures,
    render_card,
    told_legs,
)
from sr_hub.pretrained import CONFIG_FILE, FIDELITY_FILE, WEIGHTS_FILE
from sr_hub.training_record import RECORD_FILE, Leg, legs_before, read_record, record_of

_OURS = (CONFIG_FILE, WEIGHTS_FILE, FIDELITY_FILE, CARD_FILE, RECORD_FILE)
_NO_STATEMENT = "a push needs a statement on origin and licences of the training images, got none"
_PLACEHOLDERS = re.compile(r"\[more information needed\]|\bTODO\b|\{\{|\{%|lorem ipsum", re.IGNORECASE)


@dataclass(frozen=True)
class PushOptions:
    """Where and how to push.

    ``private`` counts for a new repository only. ``revision`` is a branch, made where it is missing, or
    ``refs/pr/N``. ``card`` is a file to push in place of the rendered card.
    """

    private: bool = False
    token: str | None = None
    revision: str | None = None
    create_pr: bool = False
    commit_message: str = "Upload model"
    card: Path | None = None


@dataclass(frozen=True)
class Pushed:
    """What a push did. Without a change there is no new commit, and ``url`` is that of the repository."""

    url: str
    commit: str
    changed: bool
    files: tuple[str, ...]


def push_folder(
    folder: Path, repo_id: str, options: PushOptions | None = None, card_options: CardOptions | None = None
) -> Pushed:
    """Pushes config, weights, card, pictures and training record of ``folder``, and nothing else of it.

    Of these files, the ones that the repository has and the folder has not are deleted in the same commit.

    Args:
        folder: As ``save_pretrained`` or training wrote it.
        repo_id: ``user/name``; made if missing.
        options: Where and how.
        card_options: Licence and data statement. Runs that lack them in the training record get them in the
            pushed one, for those who train on from there; the folder's stays as it is.

    Raises:
        FileNotFoundError: If the folder lacks config or weights, or the revision cannot be.
        ValueError: If the licence or the statement about the training data is missing, the name of the
            repository is none, a file is not what it should be, or a card written on the Hub would be
            lost.
        PermissionError: If there is no token or it may not write there.
        ConnectionError: If the Hub cannot be reached or breaks off; the repository is then as it was before.
    """
    options = options or PushOptions()
    _check_name(repo_id, of_whom=True)
    contents = _contents(folder, repo_id, options, card_options or CardOptions())
    api = HfApi(token=options.token or True, library_name="sr_hub")  # True: none at all is told as such
    with one_sentence(f"the push to {repo_id}", repo_id, options.revision):
        api.create_repo(repo_id, private=options.private or None, exist_ok=True)
        if options.revision and not options.revision.startswith("refs/"):
            api.create_branch(repo_id, branch=options.revision, exist_ok=True)
        before = api.model_info(repo_id, revision=options.revision)
        if options.card is None and not options.create_pr:
            _check_card_there(repo_id, HubOptions(before.sha, api.token), contents[CARD_FILE].decode())
        there = [file.rfilename for file in before.siblings or []]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in contents.items()
        ]
        operations += [
            CommitOperationDelete(path_in_repo=name)
            for name in there
            if name not in contents and (name in _OURS or is_picture(name))
        ]
        made = api.create_commit(
            repo_id,
            operations,
            commit_message=options.commit_message,
            revision=options.revision,
            create_pr=options.create_pr,
            parent_commit=before.sha,
        )
    changed = made.oid != before.sha
    url = made.pr_url or made.commit_url if changed else f"{api.endpoint}/{repo_id}"
    return Pushed(str(url), made.oid, changed, tuple(contents))


def check_before_training(config: TrainConfig) -> str:
    """The repository that the finished model will be pushed to, once all that it needs is there.

    Raises:
        FileNotFoundError: If there is no model that the training starts from.
        ValueError: If the licence or the data statement is missing, also that of a run before, the name is
            none, or a card written on the Hub would be lost.
        PermissionError: If there is no token or it may not write there.
        ConnectionError: If the Hub cannot be reached.
    """
    if not config.license:
        raise ValueError("--push-to-hub needs --license, such as apache-2.0, got none")
    check_license(config.license)
    if not (config.data_statement or "").strip():
        raise ValueError("--push-to-hub needs --data-statement, origin and licences of the images, got none")
    before = legs_before(config)
    _check_every_statement(before, runs=len(before) + 1)
    wanted = config.hub_model_id or Path(config.out).resolve().name
    _check_name(wanted)
    with one_sentence("the check of the token", wanted):
        account = HfApi(token=config.hub_token, library_name="sr_hub").whoami()
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError("the Hub token must be one that may write, got one that may only read")
    if "/" not in wanted:
        wanted = f"{account['name']}/{wanted}"
        _check_name(wanted)
    owners = [account["name"], *(entry["name"] for entry in account.get("orgs", []))]
    if wanted.split("/")[0] not in owners:
        raise PermissionError(f"--hub-model-id must be of {' or '.join(owners)}, got {wanted}")
    with suppress(FileNotFoundError):  # of a repository that is not there yet
        _check_card_there(wanted, HubOptions(token=config.hub_token), "")
    return wanted


def push_after_training(folder: Path, repo_id: str, config: TrainConfig) -> Pushed:
    """Pushes the model that the run of ``config`` wrote to ``folder``.

    Raises:
        FileNotFoundError, ValueError, PermissionError, ConnectionError: As `push_folder`.
    """
    return push_folder(
        folder,
        repo_id,
        PushOptions(private=config.hub_private_repo, token=config.hub_token),
        CardOptions(license=config.license),
    )


def _check_name(repo_id: str, *, of_whom: bool = False) -> None:
    try:
        validate_repo_id(repo_id)
        if of_whom and "/" not in repo_id:
            raise HFValidationError("no user")  # as if it were the library's own
    except HFValidationError as error:
        raise ValueError(
            f"a Hub repository must be user/name of letters, digits, '-', '_' and '.', got {repo_id!r}"
        ) from error


def _check_card_there(repo_id: str, hub: HubOptions, card: str) -> None:
    """Refuses to replace a card of the repository that was written or edited by hand."""
    path = fetch(repo_id, CARD_FILE, hub)
    if path is None:
        return
    there = path.read_text(encoding="utf-8", errors="replace")
    if there != card and not is_rendered(there) and not is_blank(there):
        raise ValueError(
            f"{CARD_FILE} of {repo_id} must be as it was rendered, got one edited by hand: name the card to "
            f"push with sr-hub push --card FILE, or take that one away there"
        )


def _contents(
    folder: Path, repo_id: str, options: PushOptions, card_options: CardOptions
) -> dict[str, bytes]:
    """What to push by its name in the repository."""
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} must hold {file}, which is not there")
    paths = [folder / CONFIG_FILE, folder / WEIGHTS_FILE]
    paths += [path for path in (folder / FIDELITY_FILE, folder / RECORD_FILE) if path.is_file()]
    contents = {path.name: path.read_bytes() for path in [*paths, *pictures(folder)]}
    legs = read_record(folder / RECORD_FILE) if RECORD_FILE in contents else []
    told = told_legs(legs, card_options)
    if told != legs:
        contents[RECORD_FILE] = record_of(told)
    if options.card is not None:
        card = options.card.read_text(encoding="utf-8")
        _check_card(card, options.card)
    else:
        own = folder / CARD_FILE
        if own.is_file() and not is_rendered(own.read_text(encoding="utf-8")):
            raise ValueError(
                f"{own} must be as it was rendered, got one edited by hand: name it as the card to push it, "
                f"or move it away"
            )
        _check_statements(told, card_options)
        card = render_card(folder, replace(card_options, repo_id=repo_id))
    contents[CARD_FILE] = card.encode()
    return contents


def _check_statements(legs: list[Leg], card_options: CardOptions) -> None:
    license_ = license_of(legs, card_options)
    if not license_:
        raise ValueError("a push needs the licence of the weights, such as apache-2.0, got none")
    check_license(license_)
    if not legs and not (card_options.data_statement or "").strip():
        raise ValueError(_NO_STATEMENT)
    _check_every_statement(legs, runs=len(legs))


def _check_every_statement(legs: list[Leg], *, runs: int) -> None:
    """Refuses a leg, of so many runs in all, that does not say where its images come from."""
    for number, leg in enumerate(legs, 1):
        if not (leg.data.statement or "").strip():
            raise ValueError(
                f"{_NO_STATEMENT} for run {number} of {runs}: give it to sr-hub push as --data-statement"
            )


def _check_card(card: str, path: Path) -> None:
    """Refuses a card by hand that the Hub, or its readers, could not use."""
    try:
        data = ModelCard(card).data.to_dict()
    except (ValueError, TypeError, AttributeError, RecursionError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} must begin with metadata between lines ---, got: {reason}") from error
    if not data.get("license"):
        raise ValueError(f"{path} must name a license in its metadata, got none")
    if found := _PLACEHOLDERS.search(card):
        raise ValueError(f"{path} must be finished, got the placeholder {found[0]!r}")
