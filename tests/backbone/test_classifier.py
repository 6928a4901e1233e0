"""Crops of whole pictures, and what GoogLeNet says of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import noise_image

from inception_rcnn.backbone.classifier import Classifier, centre_crop, cut_crops
from inception_rcnn.data import IMAGENET_CLASSES, read_image
from inception_rcnn.data.errors import ModelError


def test_the_middle_of_a_picture() -> None:
    image = np.zeros((256, 512, 3), np.uint8)
    image[:, :] = np.arange(512)[None, :, None] // 2
    assert np.array_equal(centre_crop(image), image[16:240, 144:368])
    assert centre_crop(image[:1], 28).shape == (28, 28, 3)
    assert centre_crop(np.full((900, 700, 3), 7, np.uint8), 64).mean() == 7
    np.testing.assert_array_equal(cut_crops(image, 1)[0], centre_crop(image))


def test_ten_crops_by_hand() -> None:
    image = noise_image(0, 256, 300)
    crops = cut_crops(image, 10)
    assert (crops.shape, crops.dtype) == ((10, 224, 224, 3), np.uint8)
    for crop, (y, x) in zip(crops, [(22, 0), (22, 32), (54, 0), (54, 32), (38, 16)], strict=False):
        np.testing.assert_array_equal(crop, image[y : y + 224, x : x + 224])
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])


@pytest.mark.parametrize("scale", range(4))
@pytest.mark.parametrize("portrait", [False, True])
def test_144_crops_by_hand(scale: int, portrait: bool) -> None:
    side = (256, 288, 320, 352)[scale]
    image = noise_image(0, 500, side)  # of this size the crops need no resizing
    image = np.ascontiguousarray(image.transpose(1, 0, 2)) if portrait else image
    crops = cut_crops(image, 144)
    assert crops.shape == (144, 224, 224, 3)
    np.testing.assert_array_equal(crops[72:], crops[:72, :, ::-1])
    expected = []
    for start in (0, (500 - side) // 2, 500 - side):
        square = image[start : start + side] if portrait else image[:, start : start + side]
        corner, middle = side - 224, (side - 224) // 2
        places = [(0, 0), (0, corner), (corner, 0), (corner, corner), (middle, middle)]
        expected += [square[y : y + 224, x : x + 224] for y, x in places]
        expected.append(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(crops[18 * scale : 18 * scale + 18], expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (700, 2), (17, 23)])
def test_crops_of_small_and_long_pictures(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 9, np.uint8)
    for number in (1, 10, 144):
        crops = cut_crops(image, number)
        assert crops.shape == (number, 224, 224, 3)
        assert (crops == 9).all()


def test_other_numbers_of_crops() -> None:
    with pytest.raises(ValueError, match="crops must be one of 1, 10, 144, not 5"):
        cut_crops(noise_image(0, 9, 9), 5)


def test_names_of_the_classes() -> None:
    assert len(IMAGENET_CLASSES) == len(set(IMAGENET_CLASSES.values())) == 1000
    assert list(IMAGENET_CLASSES) == sorted(IMAGENET_CLASSES)
    assert list(IMAGENET_CLASSES.values())[285] == "Egyptian cat"


def test_probabilities_are_averaged(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from inception_rcnn.backbone.googlenet import GoogLeNet
    from inception_rcnn.backbone.preprocessing import MEAN_BGR

    torch.manual_seed(0)
    networks = [GoogLeNet(5).eval(), GoogLeNet(5).eval()]
    for network in networks:  # or torch's own first weights let the signal die out
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    image = noise_image(0, 90, 70)
    classifier = Classifier(networks, tuple("abcde"), crops=10, device="cpu")
    with torch.no_grad():
        inputs = torch.from_numpy(cut_crops(image, 10)[..., ::-1] - MEAN_BGR).permute(0, 3, 1, 2)
        expected = torch.stack([network(inputs).softmax(1).mean(0) for network in networks]).mean(0)
    found = classifier(image)
    assert (found.dtype, found.shape) == (np.float32, (5,))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(found) > 1e-3
    with pytest.raises(ModelError, match="the networks have 5 classes, and there are 4 names"):
        Classifier(networks, tuple("abcd"))
    with pytest.raises(ModelError, match="the networks have 5 and 6 classes"):
        Classifier([networks[0], GoogLeNet(6)], tuple("abcde"))
    with pytest.raises(ValueError, match="must be uint8"):
        classifier(image.astype(float))


def test_the_batch_norm_form_gets_torchvisions_input() -> None:
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models
    from inception_rcnn.backbone.googlenet import GoogLeNet, state_from_torchvision

    theirs = models.googlenet(weights=None, aux_logits=False, transform_input=True, init_weights=True).eval()
    ours = GoogLeNet(batch_norm=True)
    ours.load_state_dict(state_from_torchvision(theirs.state_dict()))
    image = noise_image(0, 256, 256)
    pixels = torch.from_numpy(centre_crop(image)).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs((pixels - mean[:, None, None]) / deviation[:, None, None]).softmax(1)[0]
    found = Classifier([ours], list(IMAGENET_CLASSES.values()), device="cpu")(image)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-7)


def test_published_weights_name_pictures(shared: Path) -> None:
    """Of the first 60 labelled pictures nearly all are among five guesses, as of all of them."""
    pytest.importorskip("torch")
    weights, folder = shared / "weights" / "googlenet_bvlc_fp16.npz", shared / "data" / "imagenet"
    if not (weights.is_file() and folder.is_dir()):
        pytest.skip("no weights or pictures in the folder of reference data")
    classifier = Classifier.load(weights, device="cpu")
    right = 0
    lines = (folder / "labels.txt").read_text().splitlines()[:60]
    for line in lines:
        path, label = line.rsplit(maxsplit=1)
        assert list(IMAGENET_CLASSES).index(Path(path).parts[0]) == int(label)
        probabilities = classifier(read_image(folder / path))
        right += int(label) in np.argsort(-probabilities)[:5]
    assert right >= 52
