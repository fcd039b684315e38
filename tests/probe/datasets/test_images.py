"""Folders of images that Pillow wrote."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe.dataset_format import Hints, ModelInputs
from tests.probe.small import make_picture, read

image = pytest.importorskip("PIL.Image")

HINTS = Hints(inputs=ModelInputs(((4, 3, 1),)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for row in range(6):
        folder = tmp_path / "images" / ("cat", "ant")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(make_picture(row)[..., 0]).save(folder / f"{row}.png")
    return tmp_path / "images"


def test_an_image_folder_has_a_class_for_each_folder(images: Path, tmp_path: Path) -> None:
    probe = read(images, tmp_path / "unpacked", hints=HINTS)
    assert probe.class_names == ("ant", "cat")
    assert probe.targets.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(
        probe.inputs, np.stack([make_picture(row) for row in (1, 3, 5, 0, 2, 4)]).astype(np.float32)
    )


def test_images_need_a_model_of_images(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a model whose inputs have shape"):
        read(images, tmp_path / "unpacked", hints=Hints(inputs=ModelInputs(((12,),))))


def test_images_without_folders_of_classes_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"images must lie in it in a folder for each class, as '.*ant.cat.1.png'"
    ):
        read(images / "ant", tmp_path / "unpacked", hints=HINTS)
