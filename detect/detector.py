"""A picture in, named boxes out: propose, score, regress, suppress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ..backbone.regions.roi_align import KERNELS as REGION_KERNELS
from ..backbone.regions.scorer import PictureFeatures, RegionScorer
from ..backbone.weights.model_file import SCORINGS, read_model
from ..backbone.weights.published import bundled_models, find_model
from ..data import Detections
from ..data.errors import ModelError, SettingError
from ..data.nms import NMS_KERNELS, SOFT_NMS_KERNELS
from ..data.system.kernels import compiling
from ..proposals import MergedProposals, SelectiveSearch, knows_objects, load_proposer
from ..proposals.multibox.proposer import MultiBox
from ..proposals.proposer import Ranked
from .postprocessing import NMS, average_scores, suppress

# Regions scored in a picture: on pictures set aside from training, more of the merged ones found no more objects.
PROPOSALS = 100
# Of selective search alone, whose first hundred cover half as many.
SEARCHED = 1000
# Of these the ones that look best at a first glance.
FIRST_PASS = 200

# What reading regions and suppressing run that is compiled.
_KERNELS = (*REGION_KERNELS, *NMS_KERNELS, *SOFT_NMS_KERNELS)


class Detector:
    """Finds the objects in a picture.

    Parameters
    ----------
    scorers : sequence of RegionScorer
        Several form an ensemble: they score the same proposals and their outputs are averaged.
    proposer : SelectiveSearch or MultiBox or MergedProposals
        Where to look. A MultiBox that stands on a scorer's trunk costs little: the picture is looked at once.
    first_pass : int, optional
        Score only so many of the proposals, those with the highest `RegionScorer.first_pass_logits`, to
        which a MultiBox's confidences are added. Default all.
    min_score : float
        Weaker detections are dropped.
    nms : {"soft", "greedy"}
        See `suppress`.

    Raises
    ------
    ModelError
        If the scorers' classes differ, or none has a first pass that is asked for.
    ValueError
        If `nms` is unknown, `first_pass` negative or `min_score` not 0 to 1.

    Notes
    -----
    It can be pickled. A child that was made by fork from a process that used it can use it too, also with the torch
    engine on a CPU, which has one thread there.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 8.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> found = Detector.load("voc")(chelsea())
    >>> found.classes[found.labels[0]]
    'cat'
    """

    def __init__(
        self,
        scorers: Sequence[RegionScorer],
        proposer: SelectiveSearch | MultiBox | MergedProposals,
        *,
        first_pass: int | None = None,
        min_score: float = 0.05,
        nms: str = "soft",
    ) -> None:
        if nms not in NMS:
            raise SettingError(f"nms {nms!r} is unknown; use {' or '.join(NMS)}")
        if not 0 <= min_score <= 1:
            raise SettingError(f"min_score must be 0 to 1, not {min_score}")
        if first_pass is not None and first_pass < 0:
            raise SettingError(f"first_pass must be 0, for all, or more, not {first_pass}")
        if not scorers:
            raise ModelError("a detector needs at least one model")
        if len({scorer.model.classes for scorer in scorers}) > 1:
            raise ModelError("the models of an ensemble must have the same classes in the same order")
        self.scorers = list(scorers)
        self.classes = scorers[0].model.classes
        self.proposer = proposer
        self.first_pass = first_pass
        self.ranking = [scorer for scorer in self.scorers if scorer.model.has_first_pass] if first_pass else []
        if first_pass and not self.ranking:
            raise ModelError("the model has no first pass: it was packed without pictures to fit it on; score all")
        self.knows_objects = knows_objects(proposer, self.classes)
        self.min_score = min_score
        self.nms = nms

    @classmethod
    def load(
        cls,
        *models: str | Path,
        scoring: str | None = None,
        scales: Sequence[float] = (1.0,),
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
        method: str = "merged",
        multibox: str | Path = "voc",
        proposals: int | None = None,
        first_pass: int | None = None,
        min_score: float = 0.05,
        nms: str = "soft",
        seed: int = 0,
    ) -> Detector:
        """Make a detector from models' names or files.

        Parameters
        ----------
        *models : str or Path
            ``"voc"``, or files that ``inception-rcnn train detector`` wrote; default ``"voc"``.
        scoring : {"shared", "crops"}, optional
            Read regions out of the whole picture's features, or warp each to a crop that goes through the whole network
            as in R-CNN, at many times the work. Chooses among bundled models of a name; default the model's own.
        scales : sequence of float
            Regions are scored in pictures of so many times the size that the model says, and the scores averaged. Crops
            are always of one size.
        device : {"auto", "cpu", "cuda"}
        threads : int, optional
            CPU threads of the network; default all.
        engine : {"onnxruntime", "torch"}, optional
            Default ONNX Runtime on a CPU, torch on a GPU.
        precision : {"float32", "float16", "int8"}, optional
            Default half precision on a GPU, float32 on a CPU. In 8 bits a CPU scores regions in less than half of the
            time, and scores change in the third digit.
        method : {"merged", "selective-search", "multibox"}
            Where the proposals come from.
        multibox : str or Path
            A bundled MultiBox, or a file that ``inception-rcnn train multibox`` wrote.
        proposals : int, optional
            How many regions to look at, best proposals first; default 100, of selective search alone 1,000.
        first_pass : int, optional
            How many of these to score, see the class; 0 is all. Default 200, or all if the model has no first pass.
        min_score, nms
            See the class.
        seed : int
            Of selective search.

        Returns
        -------
        Detector

        Raises
        ------
        ModelError
            If a model is not found or cannot be read, or is for another scoring.
        DeviceError
            If the device is not there.
        ValueError
            If the method, the scoring or the suppression is unknown, or a number is out of range.
        """
        if scoring not in (None, *SCORINGS):
            raise SettingError(f"scoring {scoring!r} is unknown; use {' or '.join(SCORINGS)}")
        if not scales or not all(0.1 <= scale <= 4 for scale in scales):
            raise SettingError(f"scales must be one or more of 0.1 to 4, not {', '.join(map(str, scales)) or 'none'}")
        if proposals is not None and proposals < 1:
            raise SettingError(f"proposals must be 1 or more, not {proposals}")
        read = []
        for name in models or ("voc",):
            bundled = f"{name}-crops" if scoring == "crops" and f"{name}-crops" in bundled_models() else name
            model = read_model(find_model(bundled))
            if scoring not in (None, model.scoring):
                raise ModelError(
                    f"{name}: is for scoring {model.scoring}, not {scoring}; leave the scoring to the model"
                )
            read.append(model)
        placement: dict[str, Any] = {"device": device, "threads": threads, "engine": engine, "precision": precision}
        scorers: list[RegionScorer] = []
        search_kernels = () if method == "multibox" else SelectiveSearch().kernels
        # In a thread: on a fresh machine either takes seconds.
        with compiling(*search_kernels, *_KERNELS):
            for model in read:
                trunk = next((one.trunk for one in scorers if one.trunk.sha256 == model.trunk_sha256), None)
                for scale in scales if model.scoring == "shared" else (1.0,):
                    scorer = RegionScorer(model, trunk=trunk, scale=scale, **placement)
                    scorers.append(scorer)
                    trunk = scorer.trunk
            network: dict[str, Any] = {}
            if method != "selective-search":
                network = {"multibox": multibox, "loaded_trunks": [scorer.trunk for scorer in scorers], **placement}
            limit = proposals or (SEARCHED if method == "selective-search" else PROPOSALS)
            proposer = load_proposer(method, limit=limit, seed=seed, **network)
        if first_pass is None and any(scorer.model.has_first_pass for scorer in scorers):
            first_pass = FIRST_PASS
        return cls(scorers, proposer, first_pass=first_pass or None, min_score=min_score, nms=nms)

    @property
    def kernels(self) -> tuple[Any, ...]:
        """What a call runs that is compiled, see `data.kernels.compile_all`."""
        return (*getattr(self.proposer, "kernels", ()), *_KERNELS)

    def search(self, image: NDArray[np.uint8]) -> Ranked | None:
        """Do what needs no network: selective search, if the proposals come from there; other threads can do it ahead.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB.

        Returns
        -------
        tuple of (ndarray, shape (N, 4), float32; ndarray, shape (N,), float32), or None
            For `propose`.
        """
        if isinstance(self.proposer, MergedProposals):
            return self.proposer.search(image)
        return self.proposer(image) if isinstance(self.proposer, SelectiveSearch) else None

    def look(self, image: NDArray[np.uint8]) -> PictureFeatures:
        """Send a picture (H, W, 3) uint8 RGB through the trunk of every model that needs it, once each."""
        view = PictureFeatures(image)
        for scorer in self.scorers:
            if scorer.model.scoring == "shared":
                view.features(scorer.trunk, scorer.long_side)
        return view

    def propose(
        self, image: NDArray[np.uint8] | PictureFeatures, searched: Ranked | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Decide which regions are worth scoring.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8, or PictureFeatures
            RGB, or what `look` made of it.
        searched : tuple, optional
            What `search` gave for the picture, if it ran already.

        Returns
        -------
        boxes : ndarray, shape (N, 4), float32
            In pixels of the picture, best first; those that pass the first pass.
        objectness : ndarray, shape (N,), float32, or None
            The chance that there is an object, for `score`. Selective search alone does not know, and a MultiBox only
            of the classes that it learned.
        """
        view = image if isinstance(image, PictureFeatures) else PictureFeatures(image)
        searched = searched or self.search(view.image)
        if isinstance(self.proposer, MultiBox):
            boxes, scores = self.proposer.propose(view)
        else:
            assert searched is not None
            boxes, scores = searched
            if isinstance(self.proposer, MergedProposals):
                boxes, scores = self.proposer.join(searched, self.proposer.multibox.propose(view))
        if self.first_pass and len(boxes) > self.first_pass:
            # Two opinions, both logarithms of odds.
            promise = np.mean([scorer.first_pass_logits(view, boxes) for scorer in self.ranking], axis=0)
            if self.knows_objects:
                promise = promise + logit(scores.clip(0.0001, 0.9999))
            kept = np.sort(np.argsort(-promise, kind="stable")[: self.first_pass])
            boxes, scores = boxes[kept], scores[kept]
        return boxes, scores if self.knows_objects else None

    def score(
        self,
        image: NDArray[np.uint8] | PictureFeatures,
        proposals: NDArray[np.float32],
        objectness: NDArray[np.float32] | None = None,
    ) -> Detections:
        """Score regions of a picture and keep the best of overlapping ones.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8, or PictureFeatures
            RGB, or what `look` made of it.
        proposals : ndarray, shape (N, 4), float32
            In pixels of the picture.
        objectness : ndarray, shape (N,), float32, optional
            See `suppress`.

        Returns
        -------
        Detections
        """
        view = image if isinstance(image, PictureFeatures) else PictureFeatures(image)
        outputs = [scorer.score(view, proposals) for scorer in self.scorers]
        probabilities, deltas = average_scores(outputs, [scorer.model.box_regression for scorer in self.scorers])
        height, width = view.image.shape[:2]
        return suppress(
            proposals, probabilities, deltas, width, height, self.classes,
            objectness=objectness, min_score=self.min_score, nms=self.nms,
        )  # fmt: skip

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the objects in a picture: image (H, W, 3) uint8 RGB -> Detections, best first."""
        view = self.look(image)
        return self.score(view, *self.propose(view))
