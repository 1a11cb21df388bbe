"""The generator: a convolution-only network in LR space, and its place on the Hub."""

import json
import tempfile
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save
from torch import Tensor, nn

from sr_hub.fused import (
    WHOLE,
    Ends,
    add_conv,
    add_nearest,
    gated_conv,
    leaky_conv,
    multiplies_exactly,
    plain_conv,
    sigmoid_conv,
)
from sr_hub.hub_files import HubOptions
from sr_hub.pretrained import (
    CONFIG_FILE,
    DEFAULT_MODEL,
    FIDELITY_FILE,
    WEIGHTS_FILE,
    find_model,
    reach,
    read_config,
    read_weights,
)
from sr_hub.pretrained import DEFAULT_FIDELITY as DEFAULT_FIDELITY

_LIMITS = {"scale": (2, 4), "features": (1, 1024), "blocks": (1, 256)}


class GatedResidualBlock(nn.Module):
    """Two convolutions beside an identity, the inner features gated by what lies around them.

    ``x + conv2(relu(conv1(x) * gate))``, where ``gate``, in (0, 1), comes from three narrow convolutions in
    a row: by them a block sees four pixels far instead of two. The identity is EDSR's (arXiv:1707.02921,
    section 3.1): every block hears the first and is heard by the tail, whatever the weights. A gate from a
    narrow branch is FMEN's (arXiv:2204.08397), where it multiplies the trunk itself. No normalisation and no
    pooling, so tiling stays exact.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        narrow_features = max(1, features // 4)
        self.gate1 = nn.Conv2d(features, narrow_features, 3, padding=1)
        self.gate2 = nn.Conv2d(narrow_features, narrow_features, 3, padding=1)
        self.gate3 = nn.Conv2d(narrow_features, features, 3, padding=1)
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, ends: Ends = WHOLE) -> Tensor:
        """``x`` ``(N, F, H, W)`` to the same shape, less 4 rows where it goes on. In place in inference."""
        zeros = ends.zeros
        gate = leaky_conv(self.gate2, leaky_conv(self.gate1, x, zeros), zeros)
        gate = sigmoid_conv(self.gate3, gate, zeros)
        inner = gated_conv(self.conv1, ends.before(x, 2), gate, zeros)
        return ends.after(add_conv(ends.before(x, 4), self.conv2, inner, zeros), 4)


class RowsAbove:
    """What the layers of a generator keep of a strip of an image for the one below it.

    Each layer keeps the last rows of its input, so that strips one after the other, from the top of the image
    to its bottom, give what the whole image gives. Computed twice are only the few rows around a seam that
    inner convolutions of a block see. Kept are 8 rows of the input of each block, and 2 of any other layer's;
    none after the last strip.
    """

    def __init__(self) -> None:
        self._kept: dict[nn.Module, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._kept)

    def join(self, layer: nn.Module, x: Tensor, seen: int, *, last: bool) -> Tensor:
        """``x`` ``(N, C, H, W)`` below the rows kept for ``layer``, which sees so many rows far."""
        kept = self._kept.pop(layer, None)
        if kept is not None:
            x = torch.cat([kept, x], dim=2)
        if not last:
            below = x[:, :, -2 * seen :]
            self._kept[layer] = below.clone() if kept is None else kept.copy_(below)  # where it lay before
        return x


class SRGenerator(nn.Module, PyTorchModelHubMixin):
    """Enlarges images ``scale`` times. All convolutions run at LR size, then one sub-pixel step.

    Args:
        scale: Output pixels per input pixel, each way: 2, 3 or 4.
        features: Channels of the trunk.
        blocks: Gated residual blocks.

    Raises:
        ValueError: If ``scale`` is not 2, 3 or 4, or ``features`` or ``blocks`` is out of what can be loaded.
    """

    def __init__(self, *, scale: int = 4, features: int = 64, blocks: int = 7) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {scale}")
        for name, value in (("features", features), ("blocks", blocks)):
            least, most = _LIMITS[name]
            if not least <= value <= most:
                raise ValueError(f"{name} must lie in [{least}, {most}], got {value}")
        self.scale = scale
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.ModuleList(GatedResidualBlock(features) for _ in range(blocks))
        self.tail = nn.Conv2d(features, 3 * scale**2, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                with torch.no_grad():
                    module.weight.mul_(0.7)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for block in self.modules():
                if isinstance(block, GatedResidualBlock):
                    block.conv1.weight.mul_(2)  # as the gate starts at one half
                    block.conv2.weight.mul_(0.3)  # start near the identity
            self.tail.weight.mul_(0.1)  # start near the nearest-neighbour skip

    @property
    def receptive_radius(self) -> int:
        """How far, in LR pixels, an input pixel reaches."""
        return reach(len(self.blocks))

    def forward(self, lr: Tensor) -> Tensor:
        """``lr`` ``(N, 3, H, W)`` in [0, 1] to ``(N, 3, scale*H, scale*W)``, not clamped, in lr's dtype.

        The convolutions run in the dtype of the weights. With float32 ``lr`` and bf16 weights the skip from
        the input stays in float32: bf16 alone would round the brighter half of an image to 1/256.

        Raises:
            ValueError: If ``lr`` has another shape.
        """
        if lr.ndim != 4 or lr.shape[1] != 3:
            raise ValueError(f"lr must have shape (N, 3, H, W), got {tuple(lr.shape)}")
        # Nearest-neighbour skip: every sub-pixel of the tail starts from its input pixel.
        if multiplies_exactly(lr):
            sub_pixels = add_nearest(self.residual(lr), lr.permute(0, 2, 3, 1))
            n, height, width = sub_pixels.shape[:3]
            rows = sub_pixels.transpose(2, 3).reshape(n, self.scale * height, self.scale * width, 3)
            return rows.permute(0, 3, 1, 2)  # (N, 3, scale*H, scale*W)
        x = self._trunk(lr)  # (N, F, H, W)
        x = lr.repeat_interleave(self.scale**2, dim=1) + self.tail(x)  # (N, 3*scale^2, H, W)
        return F.pixel_shuffle(x, self.scale)  # (N, 3, scale*H, scale*W)

    def residual(self, lr: Tensor, above: RowsAbove | None = None, *, last: bool = True) -> Tensor:
        """What the network adds to each input pixel: ``(N, H, W, scale, scale, 3)`` in the weights' dtype.

        The output before the sub-pixel step, in the order of a picture's samples, for callers that finish it
        faster than `forward` can: `add_nearest` makes the sum.

        Args:
            lr: As in `forward`; with ``above`` some rows of it.
            above: For images strip by strip: empty at first, then given with each strip, from top to bottom.
                The rows returned lag ``receptive_radius`` behind those given, until the last strip.
            last: Whether the image ends with these rows.

        Raises:
            ValueError: If the first strip of several is too low to give any rows.
        """
        s = self.scale
        above = RowsAbove() if above is None else above
        ends = Ends(above=not above, below=last)
        if ends == (True, False) and lr.shape[2] < self.receptive_radius + 3:
            raise ValueError(
                f"the first strip must have {self.receptive_radius + 3} rows at least, got {lr.shape[2]}"
            )
        # From colour, row, column to row, column, colour, so that each row of three samples is one piece.
        order = torch.arange(3 * s**2, device=lr.device).view(3, s**2).T.reshape(-1)
        weight = self.tail.weight[order].contiguous(memory_format=torch.channels_last)
        x = above.join(self.tail, self._trunk_rows(lr, above, ends), 1, last=last)
        x = F.conv2d(x, weight, self.tail.bias[order], padding=(ends.zeros, 1))  # type: ignore[index]
        x = ends.after(x, 1)
        return x.permute(0, 2, 3, 1).unflatten(3, (s, s, 3))

    def _trunk(self, lr: Tensor) -> Tensor:
        """The features ``(N, F, H, W)`` that the tail turns into sub-pixels."""
        x = self.head(lr.to(self.head.weight.dtype))
        for block in self.blocks:
            x = block(x)
        return x

    def _trunk_rows(self, lr: Tensor, above: RowsAbove, ends: Ends) -> Tensor:
        """As `_trunk` for the rows of a strip that lie four for each block and one behind it."""
        x = lr.to(self.head.weight.dtype)
        x = above.join(self.head, x, 1, last=ends.below)
        x = ends.after(plain_conv(self.head, x, ends.zeros), 1)
        for block in self.blocks:
            x = block(above.join(block, x, 4, last=ends.below), ends)
        return x

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's loads weights that do not fit, silently
        cls,
        name: str | Path = DEFAULT_MODEL,
        *,
        fidelity: float | None = None,
        dtype: torch.dtype | Literal["auto"] = torch.float32,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "SRGenerator":
        """A trained generator in eval mode on the CPU.

        Args:
            name: A bundled model, a folder or ``.safetensors`` file that ``save_pretrained`` or training
                wrote, or a Hub repository ``user/name``.
            fidelity: Where the model has two ends, the blend between them: 1.0 is the pixel-loss end (true
                to the input, soft), 0.0 the GAN end (sharp, invents detail). Default: ``DEFAULT_FIDELITY``.
            dtype: Of the weights; "auto" keeps that of the file.
            revision: Of a repository: a branch, tag, commit or ``refs/pr/N``. Default: ``main``.
            token: For private repositories. Default: that of the login; False sends none.
            cache_dir: Where files of the Hub are kept. Default: that of ``HF_HOME``.
            local_files_only: Take the cache's files and ask nobody.
            force_download: Fetch anew what the cache holds.

        Raises:
            FileNotFoundError: If there is no such model or it lacks a file.
            PermissionError: If the Hub does not give it to this user.
            ConnectionError: If the Hub cannot be reached and the cache does not hold the model.
            OSError: If there is no room for it.
            ValueError: If config or weights do not fit, a download is corrupt, or ``fidelity`` is out of
                [0, 1] or asked of a model with one end.
        """
        if fidelity is not None and not 0 <= fidelity <= 1:
            raise ValueError(f"fidelity must lie in [0, 1], got {fidelity}")
        files = find_model(
            str(name), HubOptions(revision, token, cache_dir, local_files_only, force_download)
        )
        if files.fidelity is None and fidelity is not None:
            raise ValueError(f"{name} has one end only (no {FIDELITY_FILE}): fidelity cannot be chosen")
        config = read_config(files, _LIMITS)
        with torch.device("cpu"):
            expected = cls._expected_weights(config)
        kept = None if dtype == "auto" else dtype
        weights = read_weights(files.weights, expected, kept)
        if files.fidelity is not None:
            share = DEFAULT_FIDELITY if fidelity is None else fidelity
            ends = read_weights(files.fidelity, expected, weights["head.weight"].dtype)
            weights = {key: torch.lerp(weights[key], ends[key], share) for key in weights}
        with torch.device("cpu"):  # whatever torch's default is
            generator = cls(**config)  # only now, as a hostile config may ask for any amount of memory
        generator.to(weights["head.weight"].dtype).load_state_dict(weights)
        return generator.eval()

    @classmethod
    def _expected_weights(cls, config: dict[str, int]) -> dict[str, Tensor]:
        """Tensors of the names and shapes that ``config`` asks for, in the memory of a single block."""
        one = cls(**{**config, "blocks": 1}).state_dict()
        return {
            name.replace("blocks.0.", f"blocks.{block}."): value
            for block in range(config["blocks"])
            for name, value in one.items()
        }

    @property
    def config(self) -> dict[str, int]:
        """The keyword arguments that build this network."""
        return {"scale": self.scale, "features": self.head.out_channels, "blocks": len(self.blocks)}

    def save_pretrained(  # type: ignore[override]  # the mixin's pushes, too, and writes a generic card
        self, folder: str | Path, *, fidelity: "SRGenerator | None" = None
    ) -> None:
        """Writes config.json, model.safetensors and README.md, the card; makes ``folder`` if missing.

        What lies there of other weights, a fidelity end and a training record, is removed, as the folder then
        holds this model; a card edited by hand is kept.

        Args:
            folder: Where to.
            fidelity: The pixel-loss end of the family whose GAN end this is.

        Raises:
            ValueError: If ``fidelity`` is of another size.
            FileExistsError: If ``folder`` holds results that were measured on other weights.
            OSError: If the folder cannot be written.
        """
        from sr_hub.model_card import RESULTS_FOLDER, write_card  # here, as loading a model needs no Jinja
        from sr_hub.training_record import RECORD_FILE

        if fidelity is not None and fidelity.config != self.config:
            raise ValueError(f"fidelity must be of the config {self.config}, got {fidelity.config}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (_holds(folder / WEIGHTS_FILE, self) and _holds(folder / FIDELITY_FILE, fidelity)):
            if any((folder / RESULTS_FOLDER).glob("*.json")):
                raise FileExistsError(
                    f"{folder} must not hold {RESULTS_FOLDER}/ of other weights: save elsewhere"
                )
            (folder / RECORD_FILE).unlink(missing_ok=True)
        (folder / FIDELITY_FILE).unlink(missing_ok=True)
        if fidelity is not None:
            save_weights(fidelity, folder / FIDELITY_FILE)
        save_weights(self, folder / WEIGHTS_FILE, ends=1 if fidelity is None else 2)
        temporary = folder / (CONFIG_FILE + ".tmp")
        temporary.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        temporary.replace(folder / CONFIG_FILE)
        write_card(folder, keep_edited=True)

    def push_to_hub(  # type: ignore[override]  # the mixin's pushes all of a folder, with a generic card
        self,
        repo_id: str,
        *,
        license: str,
        data_statement: str,
        fidelity: "SRGenerator | None" = None,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Upload model",
    ) -> str:
        """Pushes config, weights and card to the Hub in one commit; a trained folder: ``sr-hub push``.

        Args:
            repo_id: ``user/name``; made if missing.
            license: Of the weights, as the Hub names it, such as ``apache-2.0``.
            data_statement: Origin and licences of the training images; the card says it.
            fidelity: The pixel-loss end of the family whose GAN end this is.
            private: Whether to make the repository private if it is new.
            token: Default: that of the login.
            revision: Branch, made if missing. Default: ``main``.
            create_pr: Open a pull request instead of changing the branch.
            commit_message: First line of the commit.

        Returns:
            The address of the commit or pull request; of the repository where nothing changed.

        Raises:
            ValueError: If the licence, the statement or the repository's name is missing or wrong.
            PermissionError: If there is no token or it may not write there.
            ConnectionError: If the Hub cannot be reached; the repository is then as it was before.
        """
        from sr_hub.model_card import CardOptions  # here, as loading a model needs none of it
        from sr_hub.publishing import PushOptions, push_folder

        options = PushOptions(private, token, revision, create_pr, commit_message)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, fidelity=fidelity)
            card = CardOptions(license=license, data_statement=data_statement)
            return push_folder(Path(folder), repo_id, options, card).url


def save_weights(generator: SRGenerator, path: Path, *, ends: int = 1) -> None:
    """Writes the weights to ``path`` as safetensors, by a temporary file.

    The header holds the config, so that the file alone can be loaded, and ``ends``: 2 for the GAN end of a
    family, which is not complete without its fidelity end. Equal weights give equal bytes.
    """
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    header = {"format": "pt", "config": json.dumps(generator.config), "ends": str(ends)}
    # In memory, as save_file makes files that only their owner reads.
    temporary.write_bytes(_with_sorted_header(save(tensors, header)))
    temporary.replace(path)


def _with_sorted_header(content: bytes) -> bytes:
    """``content`` of a safetensors file with its metadata, which safetensors writes in any order, sorted."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors' bytes begin at a multiple of 8
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[start:]))


def _holds(path: Path, generator: SRGenerator | None) -> bool:
    """Whether the weights file at ``path`` has just the weights of ``generator``; None stands for no file."""
    if generator is None or not path.is_file():
        return generator is None and not path.exists()
    try:
        found = read_weights(path, generator.state_dict(), dtype=None)
    except ValueError:
        return False
    return all(torch.equal(value.cpu(), found[name]) for name, value in generator.state_dict().items())
