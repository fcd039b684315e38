from pathlib import Path

from hvd_xai import World
from hvd_xai.keras.model_files import read_trained
from hvd_xai.train.callbacks import Report, SaveModel
from tests.train.tiny import Shown, build, load


def _fit(*callbacks: object, epochs: int = 2) -> None:
    build().fit(*load().train, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


def test_the_model_of_the_last_epoch_is_there(tmp_path: Path) -> None:
    world = World.alone()
    _fit(SaveModel(tmp_path, world, 0.01, [], anew=True))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.keras"]
    trained = read_trained(tmp_path)
    assert trained is not None
    assert (trained.epoch, trained.step, trained.size) == (1, 12, 1)
    assert not world.under_way


def test_models_of_another_run_are_removed_only_where_it_starts_anew(tmp_path: Path) -> None:
    old = tmp_path / "epoch-000007.keras"
    for anew in (False, True):
        old.write_bytes(b"of another run")
        save = SaveModel(tmp_path, World.alone(), 0.01, [], anew=anew)
        save.on_train_begin()
        assert old.exists() is not anew


def test_an_epoch_is_one_bar_and_one_line() -> None:
    shown = Shown()
    _fit(Report(shown, []))
    assert shown.tasks == [("epoch 0  training", 6), ("epoch 1  training", 6)]
    assert shown.done == 12
    assert [line.split("  ")[0] for line in shown.lines] == ["epoch 0", "epoch 1"]
    assert "loss " in shown.lines[0]
    assert shown.lines[0].partition("|  ")[2].startswith("train ")
