"""Weights by name: found, fetched, checked, refused; nothing half-done is left behind."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

from inception_rcnn.backbone.weights import published as weights
from inception_rcnn.backbone.weights.published import (
    Published,
    bundled_models,
    cache_folder,
    fetch,
    find_model,
    load_imagenet,
)
from inception_rcnn.data.errors import ModelError

DATA = bytes(range(256)) * 5000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("INCEPTION_RCNN_CACHE", str(folder))
    return folder


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that "net" is downloaded from."""
    source = tmp_path / "source.pth"
    source.write_bytes(DATA)
    publish(monkeypatch, source.as_uri())
    return source


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = HASH[:8]) -> None:
    monkeypatch.setattr(weights, "PUBLISHED", {"net": Published("net.pth", url, "sha256", sha256)})


def refused(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        fetch(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cache_folder_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("INCEPTION_RCNN_CACHE")
    assert cache_folder().name == "inception-rcnn"


def test_unknown_name(cache: Path) -> None:
    assert "published: googlenet-bvlc, googlenet-torchvision" in refused("resnet")
    assert not cache.exists()


def test_download_then_cache(cache: Path, published: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch("net", lambda done, total: seen.append((done, total)))
    assert path == cache / "net.pth"
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert [file.name for file in cache.iterdir()] == ["net.pth"]
    published.unlink()
    assert fetch("net") == path


def test_cached_file_with_wrong_hash_is_named_and_kept(cache: Path, published: Path) -> None:
    cache.mkdir()
    (cache / "net.pth").write_bytes(b"something else")
    message = refused("net")
    assert str(cache / "net.pth") in message
    assert "remove it" in message
    assert (cache / "net.pth").read_bytes() == b"something else"


def test_download_with_wrong_hash_is_thrown_away(cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, published.as_uri(), "0" * 8)
    assert "does not begin with 00000000" in refused("net")
    assert list(cache.iterdir()) == []


def test_download_too_large_is_stopped(cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 1 << 20)
    assert "more than 1 MiB" in refused("net")
    assert list(cache.iterdir()) == []


def test_offline_says_what_to_put_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/net.pth")
    message = refused("net")
    assert "cannot download http://127.0.0.1:9/net.pth" in message
    assert f"put the file net.pth into {cache}" in message
    assert list(cache.iterdir()) == []


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/chunks":  # ends in the middle of a chunk
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"1000\r\n" + DATA[:100])
            return
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA if self.path == "/whole" else DATA[:1000])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("what", ["absent", "half", "chunks"])
def test_failing_servers_leave_nothing(cache: Path, server: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    publish(monkeypatch, f"{server}/{what}")
    assert f"{server}/{what}" in refused("net")
    assert list(cache.iterdir()) == []


def test_download_over_http(cache: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f"{server}/whole")
    assert fetch("net").read_bytes() == DATA


def test_interrupted_download_leaves_nothing(cache: Path, published: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("net", stop)
    assert list(cache.iterdir()) == []


def test_find_model(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.touch()
    assert find_model(file) == file
    assert find_model(str(file)) == file
    for name in ("nosuch", str(tmp_path), "../voc"):
        with pytest.raises(ModelError, match=r"no such model or file( \(did you mean .*\?\))?; bundled models: "):
            find_model(name)
    for name in bundled_models():
        assert find_model(name).is_file()


def whole_network() -> dict[str, np.ndarray]:
    """Arrays of the published network under Caffe's names, all zero."""
    pytest.importorskip("torch")
    from inception_rcnn.backbone.googlenet import GoogLeNet

    branches = {"one": "1x1", "three_reduce": "3x3_reduce", "three": "3x3", "five_reduce": "5x5_reduce", "five": "5x5"}
    arrays = {}
    for name, value in GoogLeNet().state_dict().items():
        layer, kind = name.removesuffix(".weight").removesuffix(".bias"), name.rpartition(".")[2]
        layer = layer.removesuffix(".conv")
        if layer.startswith("inception_"):
            module, branch = layer.split(".")
            layer = f"{module}_{branches.get(branch, 'pool_proj')}"
        layer = {
            "conv1": "conv1_7x7_s2",
            "conv2_reduce": "conv2_3x3_reduce",
            "conv2": "conv2_3x3",
            "classifier": "loss3_classifier",
        }.get(layer, layer)
        arrays[f"{layer}.{kind}"] = np.zeros(value.shape, np.float16)
    return arrays


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_load_imagenet_reads_arrays(tmp_path: Path, suffix: str) -> None:
    from safetensors.numpy import save_file

    arrays = whole_network()
    path = tmp_path / f"net{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    state, batch_norm = load_imagenet(path)
    assert not batch_norm
    assert sum(value.numel() for value in state.values()) == 6_998_552


def test_load_imagenet_reads_torchvisions_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    path = tmp_path / "googlenet.pth"
    torch.save(torchvision.models.googlenet(init_weights=False, aux_logits=True).state_dict(), path)
    state, batch_norm = load_imagenet(path)
    assert batch_norm
    assert "auxiliary_4a.hidden.weight" in state


def test_load_imagenet_refuses_a_part_or_another_shape(tmp_path: Path) -> None:
    arrays = whole_network()
    path = tmp_path / "net.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if name != "inception_5b_3x3.bias"})
    with pytest.raises(ModelError, match=r"inception_5b\.three\.conv\.bias is missing"):
        load_imagenet(path)
    np.savez(path, **{**arrays, "loss3_classifier.bias": np.zeros(365, np.float16)})
    with pytest.raises(ModelError, match=r"classifier\.bias has shape \(365,\), not \(1000,\)"):
        load_imagenet(path)
    arrays["loss3_classifier.weight"] = np.zeros((365, 1024), np.float16)  # of places, say
    np.savez(path, **arrays)
    with pytest.raises(ModelError, match=r"classifier\.bias has shape \(1000,\), not \(365,\)"):
        load_imagenet(path)
    arrays["loss3_classifier.bias"] = np.zeros(365, np.float16)
    np.savez(path, **arrays)
    assert len(load_imagenet(path)[0]["classifier.bias"]) == 365
    np.savez(path, **arrays, fc8=np.zeros(3))
    with pytest.raises(ModelError, match="'fc8' is not a layer"):
        load_imagenet(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".caffemodel", ".pth"])
@pytest.mark.parametrize("data", [b"", b"not weights", bytes(100), b"PK\x03\x04" + bytes(60)])
def test_load_imagenet_names_damaged_files(tmp_path: Path, suffix: str, data: bytes) -> None:
    pytest.importorskip("torch")
    path = tmp_path / f"net{suffix}"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        load_imagenet(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_imagenet_names_unknown_kinds(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "net.onnx"
    path.touch()
    with pytest.raises(ModelError, match=r"unknown kind of file; give \.npz"):
        load_imagenet(path)
    with pytest.raises(ModelError, match="no such weights"):
        load_imagenet(tmp_path / "absent.npz")


class _Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    path, sign = tmp_path / "net.pth", tmp_path / "code was run"
    if zipped:
        torch.save({"conv1.conv.weight": _Malice(sign)}, path)
    else:
        path.write_bytes(pickle.dumps(_Malice(sign)))
    with pytest.raises(ModelError, match="cannot be read as GoogLeNet weights"):
        load_imagenet(path)
    assert not sign.exists()
    npz = tmp_path / "net.npz"
    np.savez(npz, **{"conv1_7x7_s2.weight": np.array([_Malice(sign)], dtype=object)})
    with pytest.raises(ModelError):
        load_imagenet(npz)
    assert not sign.exists()
