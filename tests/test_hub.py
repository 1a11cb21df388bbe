"""The real huggingface_hub client against the loopback Hub, over HTTP: what works, and every fault."""

import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants, hf_hub_download, snapshot_download
from huggingface_hub.utils import _http
from safetensors.torch import load_file, save_file

from sr_hub import SRGenerator, cli
from sr_hub.config import TrainConfig
from sr_hub.hub_store import Repository, check_path
from sr_hub.loopback_hub import DEFAULT_TOKEN, LoopbackHub, _Handler
from sr_hub.losses import find_vgg
from sr_hub.model_card import CardOptions
from sr_hub.publishing import PushOptions, check_before_training, push_folder
from sr_hub.training_record import Data, Leg, read_record, write_record

STATEMENT = "Own photos, CC0."
MODEL = {"config.json", "model.safetensors", "fidelity.safetensors", "README.md"}


def tiny(seed: int = 0, features: int = 8) -> SRGenerator:
    torch.manual_seed(seed)
    return SRGenerator(features=features, blocks=1).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trained family as a run leaves it, amid files that are nobody's affair."""
    folder = tmp_path / "model"
    tiny(0).save_pretrained(folder, fidelity=tiny(1))
    leg = Leg(
        "python train.py --seed 0", {"degradation": "photo"}, 0, {"pixel": 5}, 0.1, None, {"torch": "2"},
        Data(STATEMENT, 3, 1.5), "mit", None, None,
    )  # fmt: skip
    write_record(folder / "training_record.json", [leg])
    (folder / "before_after.png").write_bytes(b"\x89PNG picture")
    (folder / ".env").write_text("HF_TOKEN=secret")
    for name in (
        "token.txt",
        "checkpoint.json",
        "optimizer.safetensors",
        "pytorch_model.bin",
        "config.json.bak",
    ):
        (folder / name).write_text("secret")
    (folder / "checkpoint-9").mkdir()
    (folder / "checkpoint-9" / "model.safetensors").write_bytes(b"state")
    return folder


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def pushed(folder: Path, hub: LoopbackHub) -> str:
    """A repository with the family in it."""
    push_folder(folder, "me/sharp", PushOptions(token=hub.token))
    return "me/sharp"


@pytest.fixture
def load(tmp_path: Path, hub: LoopbackHub) -> Callable[..., SRGenerator]:
    """``from_pretrained`` with a cache of its own."""
    return lambda name, **options: SRGenerator.from_pretrained(
        name, **{"token": hub.token, "cache_dir": tmp_path / "cache", **options}
    )


def same(a: SRGenerator, b: SRGenerator) -> bool:
    lr = torch.rand(1, 3, 9, 7)
    return torch.equal(a(lr), b(lr))


def files(api: HfApi, revision: str | None = None) -> set[str]:
    return set(api.list_repo_files("me/sharp", revision=revision)) - {".gitattributes"}


def upload(api: HfApi, path: Path | bytes, name: str) -> None:
    api.create_repo("me/other", exist_ok=True)
    api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id="me/other")


# Push


def test_a_push_holds_exactly_the_model_in_one_commit(folder: Path, pushed: str, api: HfApi) -> None:
    assert files(api) == MODEL | {"training_record.json", "before_after.png"}
    titles = [commit.title for commit in api.list_repo_commits(pushed)]
    assert titles == ["Upload model", "initial commit"]


def test_the_round_trip_is_bit_equal(pushed: str, load: Callable[..., SRGenerator]) -> None:
    assert same(load(pushed, fidelity=0), tiny(0))
    assert same(load(pushed, fidelity=1), tiny(1))
    assert not load(pushed).training


def test_a_second_push_makes_no_commit(folder: Path, pushed: str, api: HfApi) -> None:
    before = api.model_info(pushed).sha
    again = push_folder(folder, pushed, PushOptions(token=DEFAULT_TOKEN))
    assert not again.changed and again.commit == before == api.model_info(pushed).sha
    proposal = push_folder(folder, pushed, PushOptions(token=DEFAULT_TOKEN, create_pr=True))
    assert not proposal.changed and len(list(api.list_repo_commits(pushed))) == 2


@pytest.mark.skipif(
    "ENDPOINT" not in inspect.getsource(ModelCard.validate),
    reason="this version of huggingface_hub checks every card at huggingface.co",
)
def test_the_card_passes_the_hubs_check(pushed: str, hub: LoopbackHub) -> None:
    ModelCard.load(pushed, token=hub.token).validate()


def test_the_card_names_the_repository(pushed: str, hub: LoopbackHub) -> None:
    card = ModelCard.load(pushed, token=hub.token)
    assert 'SRGenerator.from_pretrained("me/sharp", fidelity=0.25)' in card.text
    assert STATEMENT in card.text and card.data.license == "mit"
    assert card.data.pipeline_tag == "image-to-image" and card.data.library_name == "sr_hub"


def test_a_generator_pushes_itself_to_a_branch_and_as_a_proposal(
    api: HfApi, load: Callable[..., SRGenerator]
) -> None:
    facts: dict[str, Any] = {"license": "cc-by-4.0", "data_statement": STATEMENT, "token": DEFAULT_TOKEN}
    assert "/commit/" in tiny(0).push_to_hub("me/sharp", **facts)
    first = api.model_info("me/sharp").sha
    tiny(1).push_to_hub("me/sharp", **facts, revision="next", commit_message="More")
    address = tiny(2).push_to_hub("me/sharp", **facts, create_pr=True)
    assert address.endswith("/discussions/1")
    assert same(load("me/sharp"), tiny(0)) and same(load("me/sharp", revision="next"), tiny(1))
    assert same(load("me/sharp", revision="refs/pr/1"), tiny(2))
    tiny(3).push_to_hub("me/sharp", **facts)
    assert same(load("me/sharp"), tiny(3)) and same(load("me/sharp", revision=first), tiny(0))
    assert api.list_repo_commits("me/sharp", revision="next")[0].title == "More"
    assert "cc-by-4.0" in ModelCard.load("me/sharp", token=DEFAULT_TOKEN).content


def test_files_that_the_model_no_longer_has_leave_the_repository(pushed: str, api: HfApi) -> None:
    """A fidelity end left behind would be blended with weights that it does not belong to."""
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=pushed)
    tiny(5).push_to_hub(pushed, license="mit", data_statement=STATEMENT, token=DEFAULT_TOKEN)
    assert files(api) == {"config.json", "model.safetensors", "README.md", "notes.txt"}


@pytest.mark.parametrize("edited", [True, False])
def test_a_card_that_somebody_wrote_on_the_hub_is_not_overwritten(
    folder: Path, pushed: str, api: HfApi, hub: LoopbackHub, edited: bool
) -> None:
    card = ModelCard.load(pushed, token=hub.token).content + "More.\n" if edited else "# Of another\n"
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=pushed)
    tiny(7).save_pretrained(folder, fidelity=tiny(8))
    facts = CardOptions(license="mit", data_statement=STATEMENT)
    with pytest.raises(
        ValueError, match="README.md of me/sharp must be as it was rendered, got one .* --card"
    ):
        push_folder(folder, pushed, PushOptions(token=hub.token), facts)
    assert api.list_repo_commits(pushed)[0].title != "Upload model"
    assert push_folder(folder, pushed, PushOptions(token=hub.token, create_pr=True), facts).changed
    own = folder / "card.md"
    own.write_text("---\nlicense: mit\n---\n# Mine\n")
    assert push_folder(folder, pushed, PushOptions(token=hub.token, card=own), facts).changed


def test_the_card_of_a_new_repository_with_a_licence_is_replaced(
    folder: Path, api: HfApi, hub: LoopbackHub
) -> None:
    """As the Hub's page makes one: metadata alone."""
    api.create_repo("me/sharp")
    content = b"---\nlicense: mit\n---\n"
    api.upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id="me/sharp")
    assert push_folder(folder, "me/sharp", PushOptions(token=hub.token)).changed
    assert STATEMENT in ModelCard.load("me/sharp", token=hub.token).text


def test_files_of_others_stay_in_the_repository(folder: Path, pushed: str, api: HfApi) -> None:
    others = ("before_after.txt", "before_after/1.png", "before_after_plan.pdf")
    for name in (*others, "before_after_2.png"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id=pushed)
    push_folder(folder, pushed, PushOptions(token=DEFAULT_TOKEN))
    assert files(api) == MODEL | {"training_record.json", "before_after.png", *others}


def test_a_private_repository(folder: Path, load: Callable[..., SRGenerator], api: HfApi) -> None:
    push_folder(folder, "me/sharp", PushOptions(private=True, token=DEFAULT_TOKEN))
    assert api.model_info("me/sharp").private
    assert same(load("me/sharp", fidelity=0), tiny(0))
    with pytest.raises(FileNotFoundError, match="no repository me/sharp on the Hub, or it is private"):
        load("me/sharp", token=False, force_download=False, cache_dir=folder.parent / "other")


@pytest.mark.parametrize(
    ("leg", "options", "message"),
    [
        ({"license": None}, CardOptions(), "needs the licence of the weights, such as apache-2.0, got none"),
        ({}, CardOptions(license="mine"), "must be as the Hub names it, such as apache-2.0, .* got 'mine'"),
        ({"data": Data()}, CardOptions(), "needs a statement on origin and licences of the training images"),
        ({"data": Data(" ")}, CardOptions(data_statement=" "), "needs a statement on origin"),
    ],
)
def test_licence_and_data_statement_are_required(
    folder: Path, hub: LoopbackHub, leg: dict[str, Any], options: CardOptions, message: str
) -> None:
    record = json.loads((folder / "training_record.json").read_text())
    record["legs"][0] |= {key: vars(value) if key == "data" else value for key, value in leg.items()}
    (folder / "training_record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        push_folder(folder, "me/sharp", PushOptions(token=hub.token), options)
    assert not hub.requests


def test_a_generator_pushed_twice_makes_one_commit(api: HfApi) -> None:
    generator, facts = tiny(0), {"license": "mit", "data_statement": STATEMENT, "token": DEFAULT_TOKEN}
    for _ in range(4):
        generator.push_to_hub("me/sharp", **facts, fidelity=tiny(1))  # type: ignore[arg-type]
    assert len(list(api.list_repo_commits("me/sharp"))) == 2  # and the first, empty one


def without_statement(folder: Path, **leg: Any) -> bytes:
    """Adds a leg that says nothing of its data, or of what ``leg`` says, to the record; its new bytes."""
    legs = read_record(folder / "training_record.json")
    write_record(folder / "training_record.json", [*legs, replace(legs[0], data=Data(None, 2, 1.0), **leg)])
    return (folder / "training_record.json").read_bytes()


def test_what_a_push_is_told_goes_into_the_pushed_record(folder: Path, hub: LoopbackHub) -> None:
    """Whoever fine-tunes from the repository inherits the statement; the folder stays as it is."""
    local = without_statement(folder, license=None)
    facts = ["--license", "cc0-1.0", "--data-statement", "Scans of mine."]
    arguments = ["push", str(folder), "me/sharp", "--token", hub.token]
    assert cli.main([*arguments, *facts]) == 0
    assert (folder / "training_record.json").read_bytes() == local
    record = hf_hub_download("me/sharp", "training_record.json", token=hub.token, local_dir=folder.parent)
    assert [(leg.data.statement, leg.license) for leg in read_record(Path(record))] == [
        (STATEMENT, "mit"),
        ("Scans of mine.", "cc0-1.0"),
    ]
    card = ModelCard.load("me/sharp", token=hub.token).text
    assert f"| Origin and licences | {STATEMENT} |" in card
    assert "| Origin and licences | Scans of mine. |" in card
    config = TrainConfig(
        data="photos", out=str(folder.parent / "run"), init="me/sharp", license="mit",
        data_statement="More.", push_to_hub=True, hub_token=hub.token,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder.parent / "cache"))
        assert check_before_training(config) == "me/run"


def test_a_record_that_says_all_is_pushed_as_it_is(folder: Path, hub: LoopbackHub) -> None:
    record = folder / "training_record.json"
    record.write_text(record.read_text().replace("\n", "  \n"))
    facts = CardOptions(license="cc0-1.0", data_statement="Else.")
    push_folder(folder, "me/sharp", PushOptions(token=hub.token), facts)
    pushed = hf_hub_download("me/sharp", record.name, token=hub.token, local_dir=folder.parent)
    assert Path(pushed).read_bytes() == record.read_bytes()


def test_training_is_refused_where_its_push_would_be(folder: Path, hub: LoopbackHub) -> None:
    """The statement of a new run does not speak for the runs of the model that it starts from."""
    without_statement(folder)
    config = TrainConfig(
        data="photos", out=str(folder.parent / "run"), init=str(folder), license="mit",
        data_statement="More.", push_to_hub=True, hub_token=hub.token,
    )  # fmt: skip
    sentence = "a push needs a statement on origin and licences of the training images, got none for run 2 of"
    with pytest.raises(ValueError, match=f"{sentence} 3"):
        check_before_training(config)
    assert not hub.requests
    with pytest.raises(ValueError, match=f"{sentence} 2: give it to sr-hub push as --data-statement"):
        push_folder(folder, "me/sharp", PushOptions(token=hub.token))
    assert not hub.requests
    assert check_before_training(replace(config, init=None)) == "me/run"


def test_a_card_by_hand(folder: Path, hub: LoopbackHub, api: HfApi) -> None:
    own = folder / "README.md"
    own.write_text("---\nlicense: mit\n---\n# Mine\n")
    with pytest.raises(ValueError, match="must be as it was rendered, got one edited by hand"):
        push_folder(folder, "me/sharp", PushOptions(token=hub.token))
    push_folder(folder, "me/sharp", PushOptions(token=hub.token, card=own))
    assert ModelCard.load("me/sharp", token=hub.token).text == "# Mine\n"
    config = TrainConfig(
        data="photos", out="runs/mine", license="mit", data_statement="Mine.", push_to_hub=True,
        hub_model_id="me/sharp", hub_token=hub.token,
    )  # fmt: skip
    with pytest.raises(ValueError, match="README.md of me/sharp must be as it was rendered, got one edited"):
        check_before_training(config)
    for text, message in (
        ("# Mine\n", "must name a license in its metadata"),
        ("---\nlicense: [\n---\n", "must begin with metadata between lines ---"),
        (
            "---\nlicense: mit\n---\n[More Information Needed]\n",
            r"got the placeholder '\[More Information Needed\]'",
        ),
    ):
        own.write_text(text)
        with pytest.raises(ValueError, match=message):
            push_folder(folder, "me/sharp", PushOptions(token=hub.token, card=own))


@pytest.mark.parametrize("moment", ["lfs_upload", "commit"])
def test_a_push_that_dies_midway_leaves_the_repository_and_can_be_repeated(
    folder: Path, pushed: str, api: HfApi, load: Callable[..., SRGenerator], moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = api.model_info(pushed).sha
    tiny(7).save_pretrained(folder.parent / "new", fidelity=tiny(8))
    program = (
        "import sys\nfrom pathlib import Path\nfrom sr_hub.publishing import *\n"
        "from sr_hub.model_card import CardOptions\n"
        f"push_folder(Path(sys.argv[1]), {pushed!r}, PushOptions(token={DEFAULT_TOKEN!r}), "
        f"CardOptions(license='mit', data_statement='Mine.'))"
    )
    command = [sys.executable, "-c", program, str(folder.parent / "new")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    real = getattr(_Handler, moment)

    def deadly(self: _Handler, **parts: str) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if moment == "commit":  # cut short, too: the body does not reach the store
            raise ConnectionError
        real(self, **parts)

    from sr_hub import loopback_hub

    routes = [(m, p, deadly if f is real else f) for m, p, f in loopback_hub._ROUTES]
    with monkeypatch.context() as patch:
        patch.setattr(loopback_hub, "_ROUTES", routes)
        assert process.wait(timeout=100) == -signal.SIGKILL, process.stderr
    assert api.model_info(pushed).sha == before
    assert same(load(pushed, fidelity=0), tiny(0))
    facts = CardOptions(license="mit", data_statement="Mine.")
    push_folder(folder.parent / "new", pushed, PushOptions(token=DEFAULT_TOKEN), facts)
    assert same(load(pushed, fidelity=0), tiny(7)) and same(load(pushed, fidelity=1), tiny(8))
    assert len(list(api.list_repo_commits(pushed))) == 3


def test_pushing_is_refused_in_one_sentence(
    folder: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def push(*arguments: str, source: Path = folder) -> str:
        assert cli.main(["push", str(source), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error
        return error

    assert "does not accept the token" in push("me/sharp", "--token", "hf_wrong")
    assert "a Hub token is needed: run `hf auth login`, set HF_TOKEN or give one" in push("me/sharp")
    assert "forbids the push to you/sharp" in push("you/sharp", "--token", hub.token)
    for name in ("me/sha rp", "sharp"):
        assert "must be user/name of letters" in push(name, "--token", hub.token)
    assert "no model folder at" in push("me/sharp", source=tmp_path / "absent")
    assert hub.store.names() == []
    (folder / "model.safetensors").write_bytes(b"junk")
    assert "whole safetensors file" in push("me/sharp", "--token", hub.token)


def test_the_commands_push_and_say_what(
    folder: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["push", str(folder), "me/sharp", "--token", hub.token]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert f"pushed to {hub.url}/me/sharp/commit/" in out and "  fidelity.safetensors\n" in out
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"nothing changed, no commit made: {hub.url}/me/sharp\n"


# Pull


def test_a_snapshot_loads_as_a_folder(pushed: str, hub: LoopbackHub, tmp_path: Path) -> None:
    path = snapshot_download(pushed, local_dir=tmp_path / "snapshot", token=hub.token)
    assert same(SRGenerator.from_pretrained(path, fidelity=1), tiny(1))


def test_an_interrupted_download_goes_on_where_it_stopped(
    pushed: str, hub: LoopbackHub, load: Callable[..., SRGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = _Handler._send
    ranges: list[str | None] = []

    def cut_once(self: _Handler, path: Path, headers: dict[str, str]) -> None:
        if self.command == "GET" and path.stat().st_size > 20_000:
            ranges.append(self.headers.get("Range"))
            if len(ranges) == 1:
                real = self.wfile.write
                self.send_response(200)
                for name, value in {**headers, "Content-Length": str(path.stat().st_size)}.items():
                    self.send_header(name, value)
                self.end_headers()
                real(path.read_bytes()[:10_000])
                self.close_connection = True
                return
        send(self, path, headers)

    monkeypatch.setattr(_Handler, "_send", cut_once)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2000)  # so that some arrive before the cut
    assert same(load(pushed, fidelity=0), tiny(0))
    assert ranges[1] == "bytes=10000-"


def test_the_cache_serves_when_the_server_is_gone(
    pushed: str, hub: LoopbackHub, load: Callable[..., SRGenerator], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # the client waits and repeats
    load(pushed)
    hub.shutdown()
    hub.server_close()
    from huggingface_hub import close_session

    close_session()
    assert same(load(pushed, fidelity=0), tiny(0))
    with pytest.raises(ConnectionError, match="config.json of me/sharp is not in the cache and the Hub"):
        load(pushed, cache_dir=tmp_path / "empty")


def test_offline_mode(pushed: str, load: Callable[..., SRGenerator], api: HfApi, tmp_path: Path) -> None:
    tiny(4).push_to_hub("me/single", license="mit", data_statement=STATEMENT, token=DEFAULT_TOKEN)
    load(pushed), load("me/single")
    assert same(load(pushed, fidelity=0, local_files_only=True), tiny(0))
    program = (
        "import sys, torch\nfrom sr_hub import SRGenerator\n"
        "for name, fidelity in (('me/sharp', 0), ('me/single', None)):\n"
        "    g = SRGenerator.from_pretrained(name, fidelity=fidelity, cache_dir=sys.argv[1])\n"
        "    print(g.head.weight.sum().item())\n"
        "try:\n    SRGenerator.from_pretrained('me/absent', cache_dir=sys.argv[1])\n"
        "except ConnectionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    first, second, error = out.splitlines()
    assert float(first) == tiny(0).head.weight.sum().item()
    assert float(second) == tiny(4).head.weight.sum().item()
    assert error == "config.json of me/absent is not in the cache, and no connection is allowed (offline)"


def test_a_snapshot_of_one_end_loads_offline(
    load: Callable[..., SRGenerator], hub: LoopbackHub, tmp_path: Path
) -> None:
    """``snapshot_download`` leaves no note that there is no second end: the weights' header tells."""
    tiny(4).push_to_hub("me/single", license="mit", data_statement=STATEMENT, token=DEFAULT_TOKEN)
    snapshot_download("me/single", cache_dir=tmp_path / "cache", token=hub.token)
    assert same(load("me/single", local_files_only=True), tiny(4))


def test_a_family_cached_by_half_is_not_taken_for_one_end(
    pushed: str, load: Callable[..., SRGenerator], tmp_path: Path
) -> None:
    load(pushed)
    for link in tmp_path.glob("cache/**/fidelity.safetensors"):
        link.unlink()
    with pytest.raises(ConnectionError, match="fidelity.safetensors of me/sharp is not in the cache"):
        load(pushed, local_files_only=True)


def test_a_family_whose_other_end_is_gone(folder: Path, pushed: str, load: Any, api: HfApi) -> None:
    api.delete_file("fidelity.safetensors", repo_id=pushed)
    (folder / "fidelity.safetensors").unlink()
    for name in (pushed, str(folder)):
        with pytest.raises(FileNotFoundError, match="must hold fidelity.safetensors, the other end"):
            load(name)


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("me/sharp", {"token": "hf_wrong"}, PermissionError, "does not accept the token for config.json"),
        ("me/absent", {}, FileNotFoundError, "no repository me/absent on the Hub, or it is private and the"),
        ("me/sharp", {"revision": "gone"}, FileNotFoundError, "me/sharp has no revision 'gone'"),
        ("me/sh--arp", {}, FileNotFoundError, "must be user/name of letters, digits, .* got 'me/sh--arp'"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    pushed: str, load: Any, name: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)


def test_a_private_vgg_is_fetched_with_the_token(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/other", private=True)
    upload(api, b"weights", "model.safetensors")
    with pytest.raises(FileNotFoundError, match="the content loss needs VGG19's weights"):
        find_vgg("me/other")
    assert find_vgg("me/other", hub.token).read_bytes() == b"weights"


def test_a_branch_with_a_slash(folder: Path, hub: LoopbackHub, load: Any, api: HfApi) -> None:
    push_folder(folder, "me/sharp", PushOptions(token=hub.token, revision="try/äöü"))
    assert same(load("me/sharp", revision="try/äöü", fidelity=0), tiny(0))
    assert "model.safetensors" not in files(api) and "model.safetensors" in files(api, "try/äöü")
    with pytest.raises(FileNotFoundError, match="me/sharp has no revision 'no/語'"):
        load("me/sharp", revision="no/語")


def test_a_gated_repository(pushed: str, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sr_hub.loopback_hub import _Refusal

    def gate(self: _Handler, name: str) -> None:
        raise _Refusal(403, "GatedRepo", "Access to this model is restricted.")

    monkeypatch.setattr(_Handler, "_readable", gate)
    with pytest.raises(PermissionError, match="me/sharp is gated: ask for access on its page"):
        load(pushed)


@pytest.mark.parametrize(
    ("status", "message"), [(500, "answered 500"), (403, "forbids"), (429, "too many requests")]
)
def test_a_hub_in_trouble(
    pushed: str, load: Any, monkeypatch: pytest.MonkeyPatch, status: int, message: str
) -> None:
    from sr_hub.loopback_hub import _Refusal

    def fail(self: _Handler, name: str) -> None:
        raise _Refusal(status, "Trouble", "no")

    monkeypatch.setattr(_Handler, "_readable", fail)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # the client waits and repeats
    with pytest.raises(OSError, match=message):
        load(pushed)


def test_a_corrupt_file_is_told_and_not_kept(
    pushed: str, hub: LoopbackHub, load: Any, tmp_path: Path
) -> None:
    repository = hub.store.load(pushed)
    assert repository is not None
    head = repository.commits[repository.refs["main"]]
    blob = hub.store.blob(head.files["model.safetensors"].sha256)
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + b"\0")  # of the same length
    with pytest.raises(ValueError, match="model.safetensors of me/sharp must have the hash .* removed"):
        load(pushed)
    assert not list(tmp_path.glob("cache/**/model.safetensors"))
    blob.write_bytes(whole)
    assert same(load(pushed, fidelity=0), tiny(0))
    config = hub.store.blob(head.files["config.json"].sha256)
    config.write_bytes(config.read_bytes().replace(b"4", b"2"))
    with pytest.raises(ValueError, match="config.json of me/sharp must have the hash"):
        load(pushed, cache_dir=tmp_path / "other")


def test_missing_files_and_pickles(api: HfApi, folder: Path, load: Any) -> None:
    upload(api, b"x", "README.md")
    with pytest.raises(FileNotFoundError, match="me/other must hold config.json, which is not there"):
        load("me/other")
    upload(api, folder / "config.json", "config.json")
    with pytest.raises(FileNotFoundError, match="me/other must hold model.safetensors, which is not there"):
        load("me/other")
    upload(api, b"pickle", "weights/generator.pth")
    with pytest.raises(FileNotFoundError, match=r"pickle weights only \(weights/generator.pth\).* refused"):
        load("me/other")


def test_all_files_are_of_one_commit(folder: Path, pushed: str, hub: LoopbackHub, load: Any) -> None:
    """Someone pushes another model right after our client got the config of the one before."""
    old = hub.store.load(pushed)
    tiny(5, features=16).push_to_hub(pushed, license="mit", data_statement=STATEMENT, token=hub.token)
    new = hub.store.load(pushed)
    assert old is not None and new is not None
    hub.store.save(pushed, Repository(False, {**new.refs, "main": old.refs["main"]}, new.commits))
    send = _Handler._send

    def push_meanwhile(self: _Handler, path: Path, headers: dict[str, str]) -> None:
        send(self, path, headers)
        if self.command == "GET" and "config.json" in self.path:
            hub.store.save(pushed, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Handler, "_send", push_meanwhile)
        assert same(load(pushed, fidelity=0), tiny(0))
    assert same(load(pushed), tiny(5, features=16))


def test_weights_that_do_not_fit(api: HfApi, folder: Path, load: Any, tmp_path: Path) -> None:
    upload(api, folder / "config.json", "config.json")
    weights = load_file(folder / "fidelity.safetensors")
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    upload(api, tmp_path / "w.safetensors", "model.safetensors")
    with pytest.raises(ValueError, match=r"0 weights missing \(\), 1 unknown \(extra\)"):
        load("me/other")
    tiny(features=16).save_pretrained(tmp_path / "wide")
    upload(api, tmp_path / "wide" / "model.safetensors", "model.safetensors")
    with pytest.raises(
        ValueError, match=r"must have shape \(8, 8, 3, 3\), got \(16, 16, 3, 3\)|must have shape"
    ):
        load("me/other")


def test_a_full_disk(pushed: str, hub: LoopbackHub, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: the same write fails, in the same way."""
    program = (
        "import sys\nfrom sr_hub import cli\n"
        "raise SystemExit(cli.main(['upscale', sys.argv[1], sys.argv[2], '--model', 'me/sharp']))"
    )
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))

    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        capture_output=True, text=True, preexec_fn=limit,
        env={**os.environ, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert "no room on the disk" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "b.png").exists()


# The server


def raw(hub: LoopbackHub, request: str, body: bytes = b"", host: str | None = None) -> tuple[int, bytes]:
    """A request that no decent client would send."""
    import http.client

    method, path = request.split(" ", 1)
    connection = http.client.HTTPConnection("127.0.0.1", hub.server_address[1], timeout=20)
    headers = {"Authorization": f"Bearer {hub.token}"} | ({} if host is None else {"Host": host})
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_is_reached_from_this_machine_only(hub: LoopbackHub) -> None:
    assert hub.socket.getsockname()[0] == "127.0.0.1"
    assert raw(hub, "GET /api/whoami-v2")[0] == 200
    assert raw(hub, "GET /api/whoami-v2", host="example.org")[0] == 403  # a page of another site


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "a\\b", "", ".git/x", "a\0b", 3])
def test_paths_outside_a_repository_are_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="a file's path must stay inside the repository"):
        check_path(path)


def test_nothing_outside_the_store_is_read_or_written(pushed: str, hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("secret")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(hub.store.folder)}
    for request in (
        "GET /api/models/../outside", "GET /api/models/%2e%2e/outside",
        "GET /me/sharp/resolve/main/../../outside.json",
        "GET /api/models/me/..%2f..%2foutside", "GET /me/sharp/resolve/main/%2e%2e/%2e%2e/outside.json",
        "PUT /lfs/..%2f..%2foutside", "GET /etc/passwd",
    ):  # fmt: skip
        status, body = raw(hub, request)
        assert status in (400, 404) and b"secret" not in body, request
    name = json.dumps({"name": "../../evil"}).encode()
    assert raw(hub, "POST /api/repos/create", name)[0] == 400
    lines = [{"key": "header", "value": {"summary": "x"}}]
    lines.append({"key": "file", "value": {"path": "../../evil", "content": "eA=="}})
    body = "\n".join(map(json.dumps, lines)).encode()
    assert raw(hub, f"POST /api/models/{pushed}/commit/main", body)[0] == 400
    assert raw(hub, f"PUT /lfs/{'0' * 64}", b"not that")[0] == 400
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(hub.store.folder)} == before
    assert not list(hub.store.folder.rglob("*.part"))


@pytest.mark.parametrize(
    ("request_", "body", "status"),
    [
        ("POST /api/repos/create", b"[", 400),
        ("POST /api/repos/create", b"[]", 400),
        ("POST /api/models/me/sharp/commit/main", b'{"key": "odd", "value": {"path": "x"}}', 400),
        ("POST /api/models/me/sharp/commit/nowhere", b"", 404),
        ("POST /api/models/me/sharp/branch/main", b"{}", 409),
        ("GET /api/models/me/sharp/revision/nowhere", b"", 404),
        ("GET /nothing", b"", 404),
    ],
)
def test_broken_requests_get_an_answer(
    pushed: str, hub: LoopbackHub, request_: str, body: bytes, status: int
) -> None:
    assert raw(hub, request_, body)[0] == status


def test_a_store_outlives_its_server(pushed: str, hub: LoopbackHub) -> None:
    with LoopbackHub(hub.store.folder) as second:
        assert second.store.names() == ["me/sharp"]
        repository, other = hub.store.load(pushed), second.store.load(pushed)
        assert repository == other and repository is not None and len(repository.commits) == 2


def test_hub_serve_tells_what_to_set_and_stops(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sr_hub.cli",
        "hub",
        "serve",
        "--port",
        "0",
        "--store",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert "repositories: none yet" in lines[0]
    match = re.search(r"HF_ENDPOINT=(http://127.0.0.1:\d+) HF_TOKEN=(\S+)", lines[2])
    assert match is not None
    HfApi(endpoint=match[1], token=match[2]).create_repo("me/new")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert (tmp_path / "s" / "repositories" / "me" / "new.json").exists()
