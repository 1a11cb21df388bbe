"""Enlarge a folder of pictures on a cluster, with Ray Data: ``python examples/ray_upscale.py IN OUT``.

Every worker loads the model once. The folders must be the same on all machines. What ``sr-hub upscale``
promises holds here, too: a result whose input and settings are unchanged is left, files are whole or not
there, and one bad file stops nothing: it becomes a line in errors.jsonl, and the exit code 1.

Needs ``pip install "sr_hub[ray]"``. Without Ray, ``sr-hub upscale --shard I/N`` shares a folder between
machines.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import ray
import torch

from sr_hub import SRGenerator
from sr_hub.enlarging import Enlarger
from sr_hub.folders import Job, errors_file, plan_folder, sentence, tidy, write_errors
from sr_hub.memory import available_memory
from sr_hub.pipeline import FAILURES
from sr_hub.pretrained import DEFAULT_MODEL, find_model
from sr_hub.settings import Limits, Model, Settings


class Worker:
    """One process with a model of its own."""

    def __init__(self, model: str, settings: Settings, workers: int) -> None:
        files = find_model(model)
        generator = SRGenerator.from_pretrained(model, revision=files.revision)
        if torch.cuda.is_available():
            generator = generator.to("cuda")
        limits = Limits(memory=available_memory() // (2 * workers))
        self.enlarger = Enlarger(generator, settings, Model.of_files(files), limits)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One job to what became of it: an empty reason if all is well."""
        job = Job(row["name"], *(Path(row[key]) for key in ("source", "target", "record")))
        try:
            outcome = self.enlarger.write(job, self.enlarger.make(job, self.enlarger.read(job)))
        except FAILURES as error:
            return {"name": job.name, "made": False, "reason": sentence(job, error)}
        return {"name": job.name, "made": outcome.target_size is not None, "reason": ""}


def main() -> int:
    """The exit code: 1 if a picture failed."""
    parser = argparse.ArgumentParser(description="Enlarge a folder of pictures with Ray Data.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="bundled name, model folder or Hub repository (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker (default: 0)")
    arguments = parser.parse_args()
    plan = plan_folder(arguments.source.resolve(), arguments.target.resolve())
    tidy(plan)
    rows = [
        {"name": job.name, "source": str(job.source), "target": str(job.target), "record": str(job.record)}
        for job in plan.jobs
    ]
    results = []
    if rows and "RAY_ADDRESS" not in os.environ:  # no cluster but this machine
        ray.init(num_cpus=max(arguments.workers + 1, os.cpu_count() or 1), include_dashboard=False)
    if rows:
        results = (
            ray.data.from_items(rows, override_num_blocks=min(len(rows), 4 * arguments.workers))
            .map(
                Worker,
                fn_constructor_args=(arguments.model, Settings(), arguments.workers),
                compute=ray.data.ActorPoolStrategy(size=arguments.workers),
                num_gpus=arguments.gpus,
            )
            .take_all()
        )
    plan.failed.update({row["name"]: row["reason"] for row in results if row["reason"]})
    write_errors(errors_file(arguments.target, None), plan)
    made = sum(row["made"] for row in results)
    kept = len(results) - made - sum(bool(row["reason"]) for row in results)
    print(f"{made} enlarged, {kept} done before, {len(plan.failed)} failed, {len(plan.skipped)} skipped")
    return 1 if plan.failed else 0


if __name__ == "__main__":
    sys.exit(main())
