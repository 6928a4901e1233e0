"""Weights by name: bundled with the package, in the user's cache, or downloaded, with a check of the hash."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...data.errors import ModelError, did_you_mean, reason_of
from ...data.system.atomic_files import cache_folder, hash_file
from .model_file import MAX_BYTES

if TYPE_CHECKING:
    from torch import Tensor


BUNDLED = Path(__file__).parents[1] / "models"


class Published(NamedTuple):
    """A file of weights that others publish, its address, and its hash as its publisher gives it."""

    file: str
    url: str
    algorithm: str
    digest: str
    """Hexadecimal; only the beginning where the publisher gives only that."""


PUBLISHED = {
    "googlenet-bvlc": Published(
        "bvlc_googlenet.caffemodel",
        "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        "sha1",  # The only hash on BVLC's model card.
        "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
    ),
    "googlenet-torchvision": Published(
        "googlenet-1378be20.pth", "https://download.pytorch.org/models/googlenet-1378be20.pth", "sha256", "1378be20"
    ),
}


def bundled_models(folder: Path = BUNDLED) -> list[str]:
    """List the names of the models that come with the package: of the detectors, or of what another folder holds.

    Examples
    --------
    >>> "voc" in bundled_models()
    True
    """
    return sorted(file.stem for file in folder.glob("*.safetensors") if not file.stem.endswith(".graphs"))


def find_model(name_or_file: str | Path, folder: Path = BUNDLED) -> Path:
    """Find the file of a model, by the name of a bundled one or by its path.

    Parameters
    ----------
    name_or_file : str or Path
    folder : Path
        Of the bundled ones; by default of the detectors.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If there is no bundled model of that name and no such file.

    Examples
    --------
    >>> find_model("voc").name
    'voc.safetensors'
    """
    names = bundled_models(folder)
    if str(name_or_file) in names:
        return folder / f"{name_or_file}.safetensors"
    path = Path(name_or_file)
    if path.is_file():
        return path
    beside = sorted(other.name for other in path.parent.glob("*.safetensors"))
    meant = did_you_mean(path.name, [*names, *beside])
    raise ModelError(f"{name_or_file}: no such model or file{meant}; bundled models: {', '.join(names) or 'none'}")


def _has_hash(path: Path, published: Published) -> bool:
    return hash_file(path, published.algorithm).startswith(published.digest)


def fetch(name: str, report: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Return the file of published weights in the cache, downloaded first if it is not there.

    Parameters
    ----------
    name : str
        A key of `PUBLISHED`.
    report : callable
        Called with the bytes read and the bytes expected (0 if unknown), for a progress bar.

    Returns
    -------
    Path
        Its hash is checked.

    Raises
    ------
    ModelError
        If the name is unknown, the download fails or the hash is wrong. A failed download leaves no file.
    """
    if name not in PUBLISHED:
        meant = did_you_mean(name, PUBLISHED)
        raise ModelError(f"{name}: no such weights{meant}; published: {', '.join(PUBLISHED)}, or name a file")
    published = PUBLISHED[name]
    wrong = f"{published.algorithm.upper()} does not begin with {published.digest}"
    target = cache_folder() / published.file
    if target.is_file():
        if _has_hash(target, published):
            return target
        raise ModelError(f"{target}: its {wrong}; remove it and try again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(published.url, timeout=30) as response, part.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            done = 0
            while block := response.read(1 << 18):
                done += len(block)
                if done > MAX_BYTES:
                    raise ModelError(f"{published.url}: more than {MAX_BYTES >> 20} MiB, so not GoogLeNet's weights")
                file.write(block)
                report(done, total)
        if not _has_hash(part, published):
            raise ModelError(f"{published.url}: the download's {wrong}; it was deleted")
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"{name}: cannot download {published.url} ({reason}); put the file {published.file} into {target.parent}, "
            "or name a file of weights instead"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def load_imagenet(
    name_or_file: str | Path, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, Tensor], bool]:
    """Load the weights of a GoogLeNet that classifies pictures, of ImageNet's or other classes.

    Parameters
    ----------
    name_or_file : str or Path
        One of these files: ``.npz`` or ``.safetensors`` with the arrays of BVLC's network (``<layer>.weight``,
        ``<layer>.bias``), BVLC's ``bvlc_googlenet.caffemodel``, torchvision's ``googlenet-1378be20.pth``. Or
        ``"googlenet-bvlc"`` or ``"googlenet-torchvision"``: then the last two are downloaded, see `fetch`.
    report : callable
        See `fetch`.

    Returns
    -------
    state : dict of str to Tensor
        For ``GoogLeNet(len(state["classifier.bias"]), batch_norm=batch_norm).load_state_dict``; auxiliary classifiers
        only if the file has them.
    batch_norm : bool
        The form of the network that the weights are for, see `GoogLeNet`.

    Raises
    ------
    ModelError
        If the file is missing, is not one of these, or lacks weights of the network.
    """
    path = Path(name_or_file)
    if not path.is_file():
        path = fetch(str(name_or_file), report)
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so not GoogLeNet's weights")
    try:
        return _read_imagenet(path)
    except ModelError:
        raise
    except Exception as error:  # Each library raises other errors for a damaged file.
        raise ModelError(f"{path}: cannot be read as GoogLeNet weights ({reason_of(error)})") from error


def _read_imagenet(path: Path) -> tuple[dict[str, Tensor], bool]:
    import torch

    from ..googlenet import GoogLeNet, state_from_caffe, state_from_torchvision
    from .caffe import read_caffemodel

    batch_norm = path.suffix == ".pth"
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                raise ModelError(f"{path}: unpacks to more than {MAX_BYTES >> 20} MiB, so not GoogLeNet's weights")
        with np.load(path, allow_pickle=False) as arrays:
            state = state_from_caffe(arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        state = state_from_caffe(load_file(path))
    elif path.suffix == ".caffemodel":
        state = state_from_caffe(read_caffemodel(path))
    elif batch_norm:
        state = state_from_torchvision(torch.load(path, map_location="cpu", weights_only=True))
    else:
        raise ModelError(f"{path}: unknown kind of file; give .npz, .safetensors, .caffemodel or .pth")
    # The number of classes is free; all other shapes must be the network's.
    classes = len(state.get("classifier.weight", ())) or 1000
    with torch.device("meta"):
        expected = GoogLeNet(classes, batch_norm=batch_norm).state_dict()
    for name, value in expected.items():
        if name in state and state[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}")
        if name not in state and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} is missing")
    return state, batch_norm
