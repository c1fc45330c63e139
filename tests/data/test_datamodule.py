import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from segexp.data import Crops, read_image_case
from segexp.data.nifti import write_labels
from segexp.errors import ConfigError, DataError
from tests.data.heads import ROOT, TARGETS, Folder, bulk_id


@pytest.fixture
def filled(folder):
    for number in range(1, 9):
        folder.add(bulk_id(number), number)
    folder.add(bulk_id(3, 3), 33)
    return folder


def test_persons_with_two_visits_never_straddle(filled):
    module = filled.module(split={"train": 3, "validation": 2, "test": None})
    table = module.split_table()
    assert table[:4] == [(bulk_id(1), "9000001", "train"), (bulk_id(2), "9000002", "train"),
                         (bulk_id(3), "9000003", "train"), (bulk_id(3, 3), "9000003", "train")]
    assert [len(module.cases(name)) for name in ("train", "validation", "test")] == [4, 2, 3]
    assert len({case for case, _, _ in table}) == 9
    with pytest.raises(ConfigError, match="split=dev"):
        module.cases("dev")


def test_learning_curves_keep_the_other_splits(filled):
    full, part = filled.module(), filled.module(train_size=2)
    assert [c.id for c in part.cases("train")] == [c.id for c in full.cases("train")][:2]
    assert [c.id for c in part.cases("test")] == [c.id for c in full.cases("test")]
    assert part.fingerprint != full.fingerprint


def test_the_fingerprint_follows_the_content(filled, tmp_path):
    first = filled.module()
    first.prepare_data()
    print_ = first.fingerprint
    assert filled.module(cache=str(tmp_path / "another cache")).fingerprint == print_
    (filled.root).rename(tmp_path / "moved")
    assert filled.module(root=str(tmp_path / "moved")).fingerprint == print_
    (tmp_path / "moved").rename(filled.root)
    filled.add(bulk_id(8), 88)
    assert filled.module().fingerprint != print_


def test_too_few_cases_propose_a_split(filled):
    with pytest.raises(DataError, match=r"8 persons with usable cases .* data.split.train=6 data.split.validation=1"):
        filled.module(split={"train": 5000, "validation": 10, "test": None}).setup()


def test_rejected_cases_are_said_once_and_left_out(filled, capsys):
    filled.path(bulk_id(2), "fsl_first").unlink()
    module = filled.module()
    module.prepare_data()
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    printed = capsys.readouterr().out
    assert printed.count("8 of 9 cases are usable") == 1
    assert f"{bulk_id(2)}: fsl_first: there is no" in printed
    assert bulk_id(2) not in [case for case, _, _ in module.split_table()]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_training_batches_are_the_same_with_any_number_of_workers(filled, workers):
    def batches(count):
        module = filled.module(sampling=Crops(6, batch_size=2, foreground=0.5), workers=count)
        module.configure_stream(seed=5, steps=6, start_step=2)
        return list(module.train_dataloader())

    expected, found = batches(0), batches(workers)
    assert len(found) == 4
    for one, two in zip(expected, found, strict=True):
        assert one["case"] == two["case"]
        assert one["image"].shape == (2, 1, 6, 6, 6) and one["image"].dtype == torch.float32
        assert torch.equal(one["image"], two["image"])
        assert list(two["target"]) == list(TARGETS)
        assert all(torch.equal(one["target"][name], two["target"][name]) for name in TARGETS)


def test_a_stream_started_later_is_the_end_of_the_whole_stream(filled):
    def ids(**stream):
        module = filled.module(sampling=Crops(4))
        module.configure_stream(seed=5, steps=30, **stream)
        return [(batch["case"][0], float(batch["image"].sum())) for batch in module.train_dataloader()]

    assert ids()[11:] == ids(start_step=11)
    assert ids(rank=0, world_size=2) != ids(rank=1, world_size=2)


def test_training_needs_a_stream_and_a_sampling(filled):
    with pytest.raises(ConfigError, match="configure_stream"):
        filled.module(sampling=Crops(4)).train_dataloader()
    module = filled.module()
    module.configure_stream(seed=1, steps=1)
    with pytest.raises(ConfigError, match="sampling"):
        module.train_dataloader()


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_cases_are_complete_and_normalised(filled, workers):
    module = filled.module(split={"train": None, "validation": 1, "test": 3}, workers=workers)
    batches = list(module.test_dataloader())
    assert [batch["case"] for batch in batches] == [[case.id] for case in module.cases("test")]
    for batch in batches:
        assert batch["image"].shape == (1, 1, 14, 16, 12)
        assert abs(float(batch["image"].mean())) < 1e-4
        assert abs(float(batch["image"].std(correction=0)) - 1) < 1e-4
        assert batch["spacing"] == [(1.0, 1.0, 1.0)]
        assert {name: (value.dtype, value.shape) for name, value in batch["target"].items()} == {
            name: (torch.uint8, (1, 14, 16, 12)) for name in TARGETS}


def test_a_missing_target_is_left_out_of_a_whole_case(filled):
    filled.path(bulk_id(8), "fsl_first").unlink()
    batch = next(iter(filled.module(missing="mask").test_dataloader()))
    assert batch["case"] == [bulk_id(8)]
    assert "fsl_first" not in batch["target"] and "fsl_fast" in batch["target"]


def ids_of_rank(base, rank, rendezvous, queue):
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    module = Folder(base).module(split={"train": 2, "validation": 1, "test": None})
    queue.put([batch["case"][0] for batch in module.test_dataloader()])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_share_the_whole_cases_with_none_twice(filled, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [context.Process(target=ids_of_rank, args=(filled.base, rank, tmp_path / "meet", queue))
             for rank in range(2)]
    for rank in ranks:
        rank.start()
    parts = [queue.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join()
    expected = [case.id for case in filled.module(split={"train": 2, "validation": 1, "test": None}).cases("test")]
    assert sorted(parts[0] + parts[1]) == expected


class Memory(pl.LightningModule):
    """Remembers the cases it was shown; learns one number."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "validation": [], "test": []}

    def training_step(self, batch, index):
        self.seen["train"] += batch["case"]
        return (batch["image"].mean() - self.weight) ** 2

    def validation_step(self, batch, index):
        self.seen["validation"] += batch["case"]

    def test_step(self, batch, index):
        self.seen["test"] += batch["case"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightnings_trainer_runs_the_stream_and_the_whole_cases(filled, tmp_path):
    module = filled.module(sampling=Crops(6))
    module.configure_stream(seed=1, steps=10)
    trainer = pl.Trainer(max_steps=10, val_check_interval=5, check_val_every_n_epoch=None, logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
                         accelerator="cpu", default_root_dir=tmp_path)
    memory = Memory()
    trainer.fit(memory, datamodule=module)
    trainer.test(memory, datamodule=module, verbose=False)
    train = {case.id for case in module.cases("train")}
    assert len(memory.seen["train"]) == 10 and set(memory.seen["train"]) == train
    assert memory.seen["validation"] == [module.cases("validation")[0].id] * 2
    assert memory.seen["test"] == [module.cases("test")[0].id]


def test_a_file_is_read_for_prediction_as_in_training_and_written_on_its_own_grid(filled, tmp_path):
    path = filled.path(bulk_id(8), "image")
    batch = read_image_case(path)
    whole = next(iter(filled.module().test_dataloader()))
    assert torch.equal(batch["image"], whole["image"])
    assert batch["case"] == ["T1"] and batch["spacing"] == [(1.0, 1.0, 1.0)] and batch["target"] == {}
    labels = (batch["image"][0, 0] > 0).numpy().astype(np.uint8)
    write_labels(tmp_path / "out.nii.gz", labels, batch["source"])
    again = read_image_case(path)["source"]
    assert again.shape == (14, 16, 12)


def test_light_parts_import_without_torch():
    code = ("import sys, segexp.data.labelmap, segexp.data\n"
            "assert segexp.data.LabelMap and segexp.data.IGNORE == -100\n"
            "print([m for m in ('torch', 'nibabel', 'monai', 'scipy') if m in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"
