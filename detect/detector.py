"""A picture in, named boxes out: propose, score, regress, suppress, calibrate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ..backbone.regions.features import PictureFeatures
from ..backbone.regions.placement import choose_placement, has_dot_products
from ..backbone.regions.roi_align import KERNELS as REGION_KERNELS
from ..backbone.regions.scorer import RegionScorer, Trunk
from ..backbone.weights.model_file import SCORINGS, RegionModel, read_model
from ..backbone.weights.published import bundled_models, find_model
from ..data import Detections
from ..data.arguments import check_choice, check_numbers
from ..data.class_measures import hidden_classes
from ..data.classes.spelling import find_labels
from ..data.errors import ModelError, SettingError
from ..data.nms import NMS_KERNELS, SOFT_NMS_KERNELS
from ..data.score_calibration import ScoreCalibration, mean_calibration
from ..data.system.kernels import compiling
from ..proposals import Proposer, SelectiveSearch, load_proposer
from ..proposals.from_file import FileProposals
from ..proposals.multibox.file import default_multibox
from ..proposals.proposer import Ranked, check_ranked
from .postprocessing import average_scores, refine_best, suppress
from .settings import DetectorSettings

# What reading regions and suppressing run that is compiled.
_KERNELS = (*REGION_KERNELS, *dict.fromkeys((*NMS_KERNELS, *SOFT_NMS_KERNELS)))


class Detector:
    """Finds the objects in a picture.

    Parameters
    ----------
    scorers : RegionScorer or iterable of them
        Several form an ensemble: they score the same proposals and their outputs are averaged.
    proposer : Proposer
        Proposes regions. A MultiBox that stands on a scorer's trunk costs little: the trunk's features of a picture are
        computed once.
    settings : DetectorSettings, optional
        By default the first pass is used if a model has one.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes, which the labels of detections are indices of.

    Raises
    ------
    ModelError
        If the scorers' classes differ, or none has a first pass that is asked for.
    SettingError
        If the settings name a class that the models do not have.

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
        scorers: RegionScorer | Iterable[RegionScorer],
        proposer: Proposer,
        settings: DetectorSettings | None = None,
    ) -> None:
        self.scorers = [scorers] if isinstance(scorers, RegionScorer) else list(scorers)
        if not self.scorers:
            raise ModelError("a detector needs at least one model")
        if len({scorer.model.classes for scorer in self.scorers}) > 1:
            raise ModelError("the models of an ensemble must have the same classes in the same order")
        self.classes = self.scorers[0].model.classes
        self.proposer = proposer
        with_first_pass = [scorer for scorer in self.scorers if scorer.model.has_first_pass]
        self.settings = settings or _default_settings(with_first_pass)
        find_labels(self.settings.only, self.classes)
        if self.settings.first_pass_regions and not with_first_pass:
            raise ModelError("the model has no first pass: it was packed without pictures to fit it on; score all")
        self.first_pass_scorers = with_first_pass
        self.has_objectness = proposer.has_objectness(self.classes)

    @classmethod
    def load(
        cls,
        *models: str | Path | Iterable[str | Path],
        scoring: str | None = None,
        scales: Sequence[float] = (1.0,),
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
        method: str = "merged",
        multibox: str | Path | None = None,
        proposals_from: str | Path | None = None,
        proposals: int | None = None,
        first_pass_regions: int | None = None,
        second_look: int = DetectorSettings.second_look,
        min_score: float = DetectorSettings.min_score,
        nms: str = DetectorSettings.nms,
        only: Iterable[str] = (),
        calibrated: bool = DetectorSettings.calibrated,
        seed: int = 0,
    ) -> Detector:
        """Make a detector from models' names or files.

        Parameters
        ----------
        *models : str, Path or iterable of them
            ``"voc"``, or files that ``inception-rcnn train detector`` wrote; several form an ensemble. Default
            ``"voc"``.
        scoring : {"shared", "crops"}, optional
            Read regions out of the whole picture's features, or warp each to a crop that goes through the whole network
            as in R-CNN, at many times the work. Chooses among bundled models of a name; default the model's own.
        scales : sequence of float
            Regions are scored in pictures of so many times the model's size, and the scores averaged. Crops are always
            of one size.
        device, threads, engine, precision
            See `inception_rcnn.backbone.regions.placement.choose_placement`. The default precision of a CPU is int8 if
            it has dot products of 8-bit numbers and all models have graphs in 8 bits, else float32. Scores differ in
            the third digit.
        method : {"merged", "selective-search", "multibox"}
            Where the proposals come from.
        multibox : str or Path, optional
            A bundled MultiBox, or a file that ``inception-rcnn train multibox`` wrote. Default: that which is called as
            the first model, if it is bundled, else ``"voc"``; ``"any"`` if a model has classes that VOC has not.
        proposals_from : str or Path, optional
            A file of proposals, used instead of a method: see `inception_rcnn.proposals.FileProposals`. The detector is
            then called with the name of the picture.
        proposals : int, optional
            How many regions to consider, best proposals first; default 100, of selective search alone or of a file
            1,000.
        first_pass_regions : int, optional
            How many of these to score; 0 is all. Default 200, or all if no model has a first pass.
        second_look, min_score, nms, only, calibrated
            See `DetectorSettings`.
        seed : int
            Of selective search.

        Raises
        ------
        ModelError
            If a model is not found or cannot be read, or is for another scoring.
        DeviceError
            If the device is not there.
        ProposalFileError
            If the file of proposals cannot be read.
        SettingError
            If the method, the scoring, the suppression or a class is unknown, or a number is out of range.
        """
        numbers = check_numbers("scales", scales, 0.1, 4)
        if proposals_from is not None and method != "merged":
            raise SettingError(f"method {method!r}: proposals_from is used instead of a method; give one of the two")
        settings = DetectorSettings(
            second_look=second_look, min_score=min_score, nms=nms, calibrated=calibrated, only=only
        )
        by_search = proposals_from is not None or method == "selective-search"
        if proposals is not None:
            settings = replace(settings, proposals=proposals, search_proposals=proposals)
        if first_pass_regions is not None:
            settings = replace(settings, first_pass_regions=first_pass_regions)
        names = _model_names(models or ("voc",))
        read = [_read_model(name, scoring) for name in names]
        if multibox is None:
            multibox = default_multibox({name for model in read for name in model.classes}, names[0])
        placement = choose_placement(device, threads=threads, engine=engine, precision=precision)
        in_8_bits = placement.engine == "onnxruntime" and has_dot_products() and all(model.has_int8 for model in read)
        if precision is None and in_8_bits:
            placement = replace(placement, precision="int8")
        scorers: list[RegionScorer] = []
        trunks: list[Trunk] = []
        search_kernels = () if method == "multibox" else SelectiveSearch().kernels
        # In a thread: on a fresh machine compiling and loading take seconds each.
        with compiling(*search_kernels, *_KERNELS):
            for model in read:
                trunk = next((trunk for trunk in trunks if trunk.sha256 == model.trunk_sha256), None)
                for scale in numbers if model.scoring == "shared" else (1.0,):
                    scorer = RegionScorer(model, placement, trunk=trunk, scale=scale)
                    scorers.append(scorer)
                    trunk = scorer.trunk
                trunks.append(scorer.trunk)
            limit = settings.search_proposals if by_search else settings.proposals
            proposer: Proposer
            if proposals_from is not None:
                proposer = FileProposals.load(proposals_from, limit=limit)
            else:
                proposer = load_proposer(
                    method, limit=limit, seed=seed, multibox=multibox, loaded_trunks=trunks, **vars(placement)
                )
        if first_pass_regions is None and not any(model.has_first_pass for model in read):
            settings = replace(settings, first_pass_regions=0)
        return cls(scorers, proposer, settings)

    @property
    def calibration(self) -> ScoreCalibration | None:
        """What makes a score the probability that a detection is right: the model's, of an ensemble the models' mean.

        None if a model has none, or the settings do not want it.
        """
        found = [one for scorer in self.scorers if (one := scorer.model.calibration) is not None]
        return mean_calibration(found) if self.settings.calibrated and len(found) == len(self.scorers) else None

    @property
    def hidden_classes(self) -> tuple[str, ...]:
        """Classes that are not drawn: the model has not learned them well enough, of an ensemble none of the models.

        See `inception_rcnn.data.class_measures.hidden_classes`.
        """
        hidden = [{*hidden_classes(scorer.model.classes, scorer.model.measures)} for scorer in self.scorers]
        return tuple(name for name in self.classes if all(name in one for one in hidden))

    @property
    def kernels(self) -> tuple[Any, ...]:
        """What a call runs that is compiled, see `data.system.kernels.compile_all`."""
        return tuple(dict.fromkeys((*getattr(self.proposer, "kernels", ()), *_KERNELS)))

    @property
    def description(self) -> dict[str, Any]:
        """All that detections depend on, as JSON holds it: an interrupted run goes on only with the same."""
        models = [
            {
                "sha256": scorer.model.sha256, "long_side": scorer.long_side, "device": scorer.placement.device,
                "engine": scorer.placement.engine, "precision": scorer.placement.precision,
                "classes": len(scorer.model.classes),
            }
            for scorer in self.scorers
        ]  # fmt: skip
        settings = {**asdict(self.settings), "calibrated": self.calibration is not None}
        return {"models": models, "detector": settings, "proposer": self.proposer.settings}

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked | None:
        """Do the part of proposing that needs no network; threads can run it ahead. See `Proposer.search`."""
        return self.proposer.search(PictureFeatures(image).image, name)

    def features(self, image: NDArray[np.uint8]) -> PictureFeatures:
        """Compute the features of a picture (H, W, 3) uint8 RGB by every trunk that its models need, once each."""
        features = PictureFeatures(image)
        for scorer in self.scorers:
            if scorer.model.scoring == "shared":
                features.of(scorer.trunk, scorer.long_side)
        return features

    def select_regions(
        self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Propose regions and select those to score.

        Parameters
        ----------
        features : PictureFeatures
            See `features`.
        searched : tuple, optional
            The result of `search` for the picture, if it ran already.
        name : str, optional
            The picture's name, which boxes of a file are found by.

        Returns
        -------
        boxes : ndarray, shape (N, 4), float32
            In pixels of the picture, best first; those that the first pass keeps.
        objectness : ndarray, shape (N,), float32, or None
            The probability that there is an object, for `score`. None if the proposer does not know it.
        """
        boxes, scores = check_ranked(self.proposer.propose(features, searched, name))
        keep = self.settings.first_pass_regions
        if keep and len(boxes) > keep:
            logits = np.mean([scorer.first_pass_logits(features, boxes) for scorer in self.first_pass_scorers], axis=0)
            if self.has_objectness:
                # Both are logarithms of odds.
                logits = logits + logit(scores.clip(0.0001, 0.9999))
            kept = np.sort(np.argsort(-logits, kind="stable")[:keep])
            boxes, scores = boxes[kept], scores[kept]
        return boxes, scores if self.has_objectness else None

    def score(
        self,
        features: PictureFeatures,
        proposals: NDArray[np.float32],
        objectness: NDArray[np.float32] | None = None,
    ) -> Detections:
        """Score regions of a picture and suppress those that overlap better ones.

        Parameters
        ----------
        features : PictureFeatures
            See `features`.
        proposals : ndarray, shape (N, 4), float32
            In pixels of the picture.
        objectness : ndarray, shape (N,), float32, optional
            See `postprocessing.suppress`.

        Returns
        -------
        Detections
        """
        height, width = features.image.shape[:2]
        probabilities, deltas = self._score(features, proposals)
        if self.settings.second_look and deltas is not None and len(proposals):
            again, boxes = refine_best(proposals, probabilities, deltas, (width, height), self.settings, objectness)
            proposals, probabilities, deltas = proposals.copy(), probabilities.copy(), deltas.copy()
            second, deltas[again] = self._score(features, boxes)
            proposals[again], probabilities[again] = boxes, (probabilities[again] + second) / 2
        size = width, height
        return suppress(
            proposals, probabilities, deltas, size, self.classes, self.settings, objectness, self.calibration
        )

    def _score(
        self, features: PictureFeatures, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Average the probabilities (N, 1 + C) and box deltas (N, C, 4) that the models give regions (N, 4)."""
        outputs = [scorer.score(features, boxes) for scorer in self.scorers]
        return average_scores(outputs, [scorer.model.box_regression for scorer in self.scorers])

    def __call__(self, image: NDArray[np.uint8], name: str | None = None) -> Detections:
        """Find the objects in a picture.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4) are taken too.
        name : str, optional
            The picture's name; only boxes of a file need it.

        Returns
        -------
        Detections
            Best first.
        """
        features = self.features(image)
        return self.score(features, *self.select_regions(features, name=name))


def _default_settings(with_first_pass: Sequence[RegionScorer]) -> DetectorSettings:
    return DetectorSettings() if with_first_pass else DetectorSettings(first_pass_regions=0)


def _model_names(models: Iterable[Any]) -> list[str | Path]:
    """Flatten names, files and lists of them."""
    names = [name for one in models for name in (one if isinstance(one, (list, tuple)) else [one])]
    if not names or not all(isinstance(name, (str, Path)) for name in names):
        raise ModelError(f"models are names or files, at least one, not {names!r}")
    return names


def _read_model(name: str | Path, scoring: str | None) -> RegionModel:
    if scoring is not None:
        check_choice("scoring", scoring, SCORINGS)
    bundled = f"{name}-crops" if scoring == "crops" and f"{name}-crops" in bundled_models() else name
    model = read_model(find_model(bundled))
    if scoring not in (None, model.scoring):
        raise ModelError(f"{name}: is for scoring {model.scoring}, not {scoring}; leave the scoring to the model")
    return model
