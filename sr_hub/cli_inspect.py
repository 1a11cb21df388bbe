"""``sr-hub inspect``: what a model is, by its files."""

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sr_hub.folders import shown
from sr_hub.generator import SRGenerator
from sr_hub.hub_files import HubOptions
from sr_hub.model_card import CARD_FILE, CardOptions, license_in_card, license_of
from sr_hub.pretrained import find_beside, find_model
from sr_hub.provenance import read_provenance
from sr_hub.training_record import RECORD_FILE, read_record, sha256_of


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``inspect`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "inspect",
        help="tell what a model is, or what made a picture",
        description="Tells architecture, config, parameters, licence, training and hashes of a model. Its "
        "weights are read and checked. Of a picture: what sr-hub wrote into it.",
    )
    parser.add_argument(
        "model", help="model folder, .safetensors file, bundled name, Hub repository; or picture"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--revision", help="branch, tag or commit of a repository")
    parser.add_argument("--token", help="Hub token (default: that of the login)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the facts, a line each.

    Raises:
        OSError, ValueError: With one sentence to show, if it is no whole model.
    """
    if _is_picture(arguments.model):
        facts = describe_picture(arguments.model)
    else:
        facts = describe_model(
            arguments.model, HubOptions(revision=arguments.revision, token=arguments.token)
        )
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{shown(name):{width}}  {'not stated' if value is None else shown(value)}")


def describe_picture(path: str) -> dict[str, Any]:
    """What made a picture, by its own account.

    Raises:
        ValueError: If it is no picture, or says nothing of the kind.
    """
    facts = read_provenance(path)
    if facts is None:
        raise ValueError(f"{path}: expected a picture that sr-hub wrote, got one without its provenance")
    return facts


def describe_model(name: str, hub: HubOptions) -> dict[str, Any]:
    """The facts of a model by their name; offline, what the cache does not hold is told as that."""
    files = find_model(name, hub)
    generator = SRGenerator.from_pretrained(name, **vars(hub))
    config = generator.config
    facts: dict[str, Any] = {
        "model": name,
        "architecture": f"{type(generator).__name__}: {config['blocks']} gated residual blocks, "
        f"{config['features']} channels, x{config['scale']}",
        **config,
        "parameters": sum(value.numel() for value in generator.parameters()),
        "receptive_radius": generator.receptive_radius,
        "ends": "one" if files.fidelity is None else "two: detail (fidelity 0) and fidelity 1",
        "license": None,
        "training_data": None,
    }
    beside: dict[str, Path | None] = {RECORD_FILE: None, CARD_FILE: None}
    for file in beside if files.config is not None else ():
        try:
            beside[file] = find_beside(name, file, hub)
        except ConnectionError as error:  # of a model that was loaded before, without these
            facts[file] = str(error)
    record, card = beside.values()
    legs = [] if record is None else read_record(record)
    facts["license"] = license_of(legs, CardOptions())
    if facts["license"] is None and card is not None:
        facts["license"] = license_in_card(card.read_text(encoding="utf-8"))
    if not legs and card is not None:
        facts["training_data"] = f"no {RECORD_FILE}; {CARD_FILE} may tell"
    if legs:
        facts["training_data"] = legs[-1].data.statement
        facts |= {f"trained_{number}": leg.command for number, leg in enumerate(legs, 1)}
    for path in filter(None, (files.weights, files.fidelity)):
        facts[path.name] = f"{_dtype(path)}, {path.stat().st_size} bytes, SHA-256 {sha256_of(path)}"
    return facts


def _dtype(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        names = {str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    return " and ".join(sorted(names))


def _is_picture(name: str) -> bool:
    return Path(name).is_file() and Path(name).suffix != ".safetensors"
