"""The training loop: both phases, resumed exactly, with validation beside bicubic."""

import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from sr_hub.checkpoint import load_checkpoint, save_checkpoint
from sr_hub.config import TrainConfig
from sr_hub.curves import plot_curves
from sr_hub.data import Batch, Crops, is_usable, list_images, smallest_side
from sr_hub.degradations import DEGRADATIONS
from sr_hub.evaluation import Pair, find_pairs, hold_out, least_side, load_samples
from sr_hub.generator import SRGenerator, save_weights
from sr_hub.hub_files import HubOptions
from sr_hub.journal import Journal
from sr_hub.losses import find_vgg
from sr_hub.model_card import PICTURE_FILE, CardOptions, write_card
from sr_hub.phases import AdversarialPhase, Phase, PixelPhase, check_adversarial
from sr_hub.precision import resolve_precision
from sr_hub.pretrained import find_model, read_weights
from sr_hub.run_folder import (
    MODEL_FOLDER,
    PHASES,
    apart_from_training,
    check_settings,
    has_begun,
    own_pictures,
    sheets,
    trim_metrics,
)
from sr_hub.training_record import (
    METRICS_FILE,
    RECORD_FILE,
    SETTINGS_FILE,
    Data,
    describe_run,
    legs_before,
    read_record,
    start_of,
    sums_of,
    this_machine,
    told_anew,
    write_record,
)
from sr_hub.whole_files import sole_user

logger = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path | None:
    """Runs both phases, or what is left of them, and writes the model.

    The run folder ``config.out`` gets ``train_config.json``, ``metrics.jsonl``, ``sheets/``, checkpoints and
    at the end ``model/`` with the weights and ``curves.png``. The same call on the same folder goes on where
    the last checkpoint stands.

    Returns:
        The model's folder, or None when ``max_minutes`` or a signal stopped the run before its end.

    Raises:
        FileNotFoundError: If a folder or file that the settings name is missing.
        ValueError: If the settings contradict the run folder or cannot work, or no image can be used.
        BlockingIOError: If another training is at work in the run folder.
        sr_hub.journal.NonFiniteLossError: If a loss is not finite.
    """
    with _processes() as (rank, world_size):
        return _Run(config, rank, world_size).train()


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of processes: those of ``torchrun`` where it started this one, else 0 and 1."""
    if not dist.is_torchelastic_launched():
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _device(name: str, rank: int) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be one that is there: cuda was asked for, torch finds none")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # all batches of a phase have one shape
    return device


def learning_rate_factor(step: int, progress: float, warmup: int, final: float) -> float:
    """Share of the peak learning rate: linear warm-up over the first steps, then half a cosine.

    Args:
        step: Steps taken before.
        progress: How much of the phase is over, 0 to 1.
        warmup: Steps until the peak.
        final: Share at the end.
    """
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return warm * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


class _Run:
    """One process of one run: its folder, its data and its clock."""

    def __init__(self, config: TrainConfig, rank: int, world_size: int) -> None:
        self.started = time.monotonic()
        self.config, self.rank, self.world_size = config, rank, world_size
        for name in ("batch_size", "adversarial_batch_size"):
            if getattr(config, name) % world_size:
                raise ValueError(
                    f"{name} must be a multiple of {world_size} processes, got {getattr(config, name)}"
                )
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = _device(config.device, rank)
        self.bf16 = resolve_precision(config.precision, self.device) == torch.bfloat16
        self.folder = Path(config.out)
        self.degradation = DEGRADATIONS[config.degradation]
        content = config.adversarial_steps and config.content_weight
        self.vgg = find_vgg(config.vgg, config.hub_token) if content else None
        if config.adversarial_steps:
            check_adversarial(config, self.vgg)
        token = HubOptions(token=config.hub_token)
        self.start_files = None if config.init is None else find_model(config.init, token)
        self.start, self.fidelity = self._start_weights()
        self.before, self.begun_from = legs_before(config), start_of(config, self.start_files)
        self.start_sums = [] if self.start_files is None else sums_of(self.start_files)
        self.seconds_before = 0.0
        self.spent = {"pixel": 0.0, "adversarial": 0.0}  # seconds in each phase's loop
        self.stop = False

    def _start_weights(self) -> tuple[SRGenerator, SRGenerator | None]:
        """The generator to begin with, and the pixel-loss end of its family that phase 2 alone is to keep."""
        config = self.config
        if config.init is None or self.start_files is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                start = SRGenerator(scale=config.scale, features=config.features, blocks=config.blocks)
            return start, None
        token = config.hub_token
        start = SRGenerator.from_pretrained(config.init, fidelity=config.init_fidelity, token=token)
        if start.scale != config.scale:
            raise ValueError(f"scale must be that of --init, {start.scale}, got {config.scale}")
        for name in ("features", "blocks"):
            asked, there = getattr(config, name), start.config[name]
            if asked not in (there, getattr(TrainConfig, name)):
                raise ValueError(f"{name} must be that of --init, {there}, or left out, got {asked}")
        if self.start_files.fidelity is None:
            return start, start
        return start, SRGenerator.from_pretrained(config.init, fidelity=1.0, token=token)

    def _load_data(self) -> None:
        config = self.config
        smallest = smallest_side(config.largest_patch, config.scale, config.shrink)
        paths = list_images(Path(config.data), apart_from_training(self.folder, config))
        if config.validation:
            own = own_pictures(self.folder, Path(config.validation))
            pairs = find_pairs(Path(config.validation), config.scale, leave_out=own)
        else:
            held_out = hold_out(paths, config.scale)
            rest = [path for path in paths if path not in held_out]
            if len(paths) >= 20 and any(is_usable(path, smallest) for path in rest):
                paths = rest
            pairs = [Pair(path.name, path) for path in held_out]
        self.validation = list(
            load_samples(pairs, config.scale, degradation=self.degradation, largest_side=512)
        )
        least = least_side(config.scale)
        for sample in self.validation:
            height, width = sample.hr.shape[-2:]
            if min(height, width) < least:
                raise ValueError(
                    f"{sample.name} must have sides of at least {least} pixels to validate on, "
                    f"got {width}x{height}"
                )
        self.crops = Crops(paths, smallest, config.memory_limit * 1e9, self.device)

    def train(self) -> Path | None:
        check_settings(self.folder, self.config)
        self._load_data()
        (self.folder / "sheets").mkdir(parents=True, exist_ok=True)
        with sole_user(self.folder / ".lock") if self.rank == 0 else nullcontext():
            self._open_folder()
            return self._train()

    def _train(self) -> Path | None:
        found = load_checkpoint(self.folder)
        done = {"pixel": 0, "adversarial": 0}
        if found:
            self._check_start(found[1].get("start", self.start_sums))
            done |= found[1]["done"]
            self.seconds_before = found[1]["seconds"]
            self.spent |= found[1].get("spent", {})
        if self.rank == 0:
            trim_metrics(self.folder, done)
        self.journal = Journal(
            self.config,
            self.validation,
            self.device,
            self._seconds,
            rank=self.rank,
            world_size=self.world_size,
        )
        with self._signals():
            generator = self.start
            fidelity = self.fidelity
            for name in PHASES:
                steps = self.config.pixel_steps if name == "pixel" else self.config.adversarial_steps
                if not steps:
                    continue
                if (self.folder / f"{name}.safetensors").exists():
                    generator = self._load_end(name)
                else:
                    tensors = found[0] if found and done[name] else None
                    phase = self._phase(name, generator, tensors)
                    if not self._loop(name, phase, done, steps):
                        return None
                    generator = phase.ema.cpu()
                    if self.rank == 0:
                        self._save_end(name, generator)
                if name == "pixel":
                    fidelity = generator
        return self._finish(generator, fidelity if self.config.adversarial_steps else None)

    def _check_start(self, sums: list[str]) -> None:
        if sums != self.start_sums:
            raise ValueError(
                f"{self.config.init} holds other weights than those that {self.folder} started from: put the "
                f"old ones back, or use another --out"
            )

    def _phase(self, name: str, start: SRGenerator, tensors: dict[str, Tensor] | None) -> Phase:
        if name == "pixel":
            phase: Phase = PixelPhase(start, self.config, self.device, self.bf16)
        else:
            calibration = self._batch("adversarial", 0, whole=True).hr
            phase = AdversarialPhase(
                start, self.config, self.device, self.bf16, vgg=self.vgg, calibration=calibration
            )
        if tensors is not None:
            phase.load(tensors)
        return phase

    def _batch(self, name: str, step: int, *, whole: bool = False) -> Batch:
        config = self.config
        pixel = name == "pixel"
        count = config.batch_size if pixel else config.adversarial_batch_size
        seeds = np.random.SeedSequence((config.seed, PHASES.index(name), step)).generate_state(count + 1)
        keys = [int(key) for key in seeds]
        share = count // self.world_size
        mine = keys[:count] if whole else keys[self.rank * share : (self.rank + 1) * share]
        turn = keys[count] if config.mirror else keys[count] & ~7  # the shift stays
        return self.crops.batch(
            mine,
            turn,
            config.patch_size if pixel else config.adversarial_patch_size,
            config.scale,
            self.degradation,
            config.shrink,
            config.recolor,
        )

    def _loop(
        self, name: Literal["pixel", "adversarial"], phase: Phase, done: dict[str, int], steps: int
    ) -> bool:
        """Trains ``phase`` to its end; False when it was stopped before."""
        config = self.config
        first, before, started = done[name], self.spent[name], time.monotonic()
        if first and self._budget_used(name) == 1:  # killed between its last checkpoint and its weights
            return True
        pending: list[dict[str, Tensor]] = []
        bar = tqdm(total=steps, initial=first, desc=name, unit="step", disable=self.rank > 0, mininterval=5)
        with bar:
            for step in range(first, steps):
                progress = max(step / steps, self._budget_used(name))
                rate = learning_rate_factor(step, progress, config.warmup_steps, config.final_learning_rate)
                pending.append(phase.step(self._batch(name, step), rate))
                done[name] = step + 1
                self.spent[name] = before + time.monotonic() - started
                bar.update()
                last = step + 1 == steps or self._budget_used(name) == 1
                stopping = self._should_stop()
                saving = last or stopping or (step + 1) % config.checkpoint_every == 0
                if saving or (step + 1) % config.log_every == 0:
                    values = self.journal.losses(name, step + 1, pending, rate)
                    pending = []
                    bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
                if last or (config.validate_every and (step + 1) % config.validate_every == 0):
                    self.journal.validate(name, step + 1, phase.ema)
                if saving and self.rank == 0:
                    clocks = {"spent": self.spent, "seconds": self._seconds()}
                    names = {"name": f"{name}-{step + 1}", "start": self.start_sums}
                    facts = {**names, "done": done, **clocks}
                    save_checkpoint(self.folder, phase.state(), facts)
                if last:
                    break
                if stopping:
                    logger.warning(
                        "stopped at step %d of %d; the same command goes on from here", step + 1, steps
                    )
                    return False
        return True

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _budget_used(self, name: str) -> float:
        """The share of the phase's ``budget_minutes`` that is over, the same in all processes."""
        if not self.config.budget_minutes:
            return 0.0
        seconds = self.spent[name]
        if self.world_size > 1:
            slowest = torch.tensor(seconds, device=self.device)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            seconds = slowest.item()
        return min(1.0, seconds / (60 * self.config.budget_minutes))

    def _should_stop(self) -> bool:
        limit = self.config.max_minutes * 60
        stop = self.stop or (limit > 0 and time.monotonic() - self.started > limit)
        if self.world_size > 1:
            flag = torch.tensor(float(stop), device=self.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            stop = bool(flag.item())
        return stop

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Lets SIGINT and SIGTERM stop the run with a checkpoint."""

        def ask(number: int, frame: Any) -> None:
            self.stop = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _open_folder(self) -> None:
        """Writes the settings into the run folder."""
        if self.rank == 0:
            if not has_begun(self.folder):  # those there are of a start that came to nothing
                for sheet in sheets(self.folder):
                    sheet.unlink()
            self.config.save(self.folder / SETTINGS_FILE)

    def _save_end(self, name: str, generator: SRGenerator) -> None:
        save_weights(generator, self.folder / f"{name}.safetensors")

    def _load_end(self, name: str) -> SRGenerator:
        generator = SRGenerator(
            scale=self.start.scale, features=self.start.head.out_channels, blocks=len(self.start.blocks)
        )
        path = self.folder / f"{name}.safetensors"
        generator.load_state_dict(read_weights(path, generator.state_dict()))
        return generator

    def _finish(self, generator: SRGenerator, fidelity: SRGenerator | None) -> Path:
        """Writes ``model/``: config, weights, and beside a GAN model the pixel-loss end it came from."""
        folder = self.folder / MODEL_FOLDER
        if self.rank == 0:
            generator.save_pretrained(folder, fidelity=fidelity)
            self._describe(folder)
            plot_curves(self.folder / METRICS_FILE, self.folder / "curves.png")
        return folder

    def _describe(self, folder: Path) -> None:
        """Writes what the run was, its last sheet and the card beside the weights."""
        sizes = self.crops.sizes
        leg = describe_run(
            self.folder,
            data=Data(None, len(sizes), round(sum(height * width for height, width in sizes) / 1e6, 1)),
            machine=this_machine(self.device, self.world_size),
            start=self.begun_from,
        )
        record = folder / RECORD_FILE
        if record.is_file():  # of these very weights: this call has trained nothing
            leg = told_anew(read_record(record)[-1], leg.license, leg.data.statement)
        write_record(record, [*self.before, leg])
        phase = "adversarial" if self.config.adversarial_steps else "pixel"
        if found := sheets(self.folder, phase):
            shutil.copyfile(found[-1], folder / PICTURE_FILE)
        write_card(folder, CardOptions(name=self.folder.resolve().name), keep_edited=True)
