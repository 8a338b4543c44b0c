"""Recipes written for folders of pictures: what they say is what is there, and they run as they are."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from datamodules.imagenet import ImageFolderDataModule
from datamodules.small_pictures import SmallPicturesDataModule
from search.cli import main
from search.recipes.drafts import classification

CLASSES = {"cat": 12, "dog": 7, "eel": 5}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def save(path, height=40, width=48, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_classes(folder, counts=CLASSES):
    for name, count in counts.items():
        for k in range(count):
            save(folder / name / f"{k:03}.png", 40 + k, seed=k)
    return folder


def make_boxes(folder, images=10, name="coco.json"):
    """One file of annotations, with an object of each of two classes in every image and of a third in two."""
    annotations = []
    for k in range(images):
        save(folder / "photos" / f"{k}.jpg", 64, 96, seed=k)
        for c in (1, 2, 3) if k < 2 else (1, 2):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": k, "category_id": c, "bbox": [8 * c, 8, 20, 30]}
            )
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 96, "height": 64} for k in range(images)],
        "annotations": annotations,
        "categories": [{"id": c, "name": name} for c, name in ((1, "cup"), (2, "fork"), (3, "spoon"), (4, "knife"))],
    }
    (folder / name).write_text(json.dumps(content))
    return folder


def make_maps(folder, images=10, sub="images", label="masks/{}_mask.png"):
    for k in range(images):
        save(folder / sub / f"{k}.jpg", 64, 96, seed=k)
        path = folder / label.format(k)
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.zeros((64, 96), dtype=np.uint8)
        labels[:, 60:] = 2
        labels[:4] = 255
        Image.fromarray(labels).save(path)
    return folder


def written(name):
    text = open(name).read()
    recipe = yaml.safe_load(text)
    (task,) = recipe["targets"].values()
    return text, task["init_args"]["data"]["init_args"]


def refusal(capsys, *words):
    """What the command says that does nothing, in one line."""
    assert main(["new", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("catchmark: ")
    return captured.err


MAKE = {"classification": make_classes, "detection": make_boxes, "segmentation": make_maps}


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_written_runs_as_it_is(kind, tmp_path, capsys):
    MAKE[kind](tmp_path / "my things")
    assert main(["new", kind, "my things", "--out", "mine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "recipe: mine.yaml" in said
    assert main(["run", "mine.yaml", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "# in all:" in planned
    assert main(["run", "mine.yaml", "--tiny", "--quiet"]) == 0
    summary = json.loads((tmp_path / "runs/mine-tiny/latest/summary.json").read_text())
    assert "my_things" in json.dumps(summary)


def test_classes_are_counted_and_rare_ones_told_of(tmp_path, capsys):
    make_classes(tmp_path / "pets", {"cat": 60, "dog": 30, "eel": 5})
    (tmp_path / "pets/cat/notes.gif").write_text("")
    assert main(["new", "classification", "pets"]) == 0
    said = capsys.readouterr().out
    text, data = written("pets.yaml")
    for place in (said, text):
        assert "77 pictures to train on and 18 for validation: every 5th picture of each class" not in place
        assert "76 pictures to train on and 19 for validation: every 5th picture of each class" in place
        assert "48x40 to 48x99 pixels" in place
        assert [line.split()[-3:] for line in place.splitlines() if "eel  " in line] == [["eel", "4", "1"]]
        assert "'cat' has 48 pictures to train on, 'eel' (4) a tenth of that or less" in place
        assert "right of 63.2 %" in place  # 12 of 19
        assert "are passed over: 1 .gif" in place
    assert data["root"] == "pets" and data["resolution"] == 32 and data["batch_size"] == 8


def test_a_folder_for_validation_is_found(tmp_path, capsys):
    make_classes(tmp_path / "pets/train", {"cat": 6, "dog": 4})
    make_classes(tmp_path / "pets/valid", {"cat": 2})
    make_classes(tmp_path / "pets/test", {"cat": 2, "dog": 1})
    assert main(["new", "classification", "pets"]) == 0
    said = capsys.readouterr().out
    assert "10 pictures to train on and 2 for validation: those in 'valid'" in said and "'test' is for a report" in said
    assert "class 'dog' has no picture for validation" in said


def test_a_broken_picture_is_named_and_left_out_where_asked(tmp_path, capsys):
    pets = make_classes(tmp_path / "pets")
    whole = (pets / "cat/003.png").read_bytes()
    (pets / "cat/003.png").write_bytes(whole[: len(whole) // 2])
    (pets / "dog/000.png").write_bytes(b"")
    told = refusal(capsys, "classification", "pets")
    assert "2 of 24 pictures" in told and "'cat/003.png'" in told and "'dog/000.png' (it is empty)" in told
    assert "--skip-broken" in told and not (tmp_path / "pets.yaml").exists()
    assert main(["new", "classification", "pets", "--skip-broken"]) == 0
    assert "files that cannot be read are left out, 2 in all: 'cat/003.png', 'dog/000.png'" in capsys.readouterr().out
    assert written("pets.yaml")[1]["left_out"] == ["cat/003.png", "dog/000.png"]
    module = SmallPicturesDataModule(**written("pets.yaml")[1])
    assert [len(each) for each in (module.training_set(), module.validation_set())] == [18, 4]
    with pytest.raises(ValueError, match=r"cat/003\.png cannot be read"):
        _ = SmallPicturesDataModule("pets").num_classes
    with pytest.raises(ValueError, match=r"left_out: there is no picture 'cat/x\.png'"):
        _ = SmallPicturesDataModule("pets", left_out=["cat/x.png"]).num_classes


def test_pictures_that_do_not_fit_into_memory_stay_on_disk(tmp_path, monkeypatch):
    make_classes(tmp_path / "pets")
    monkeypatch.setattr(classification, "_IN_MEMORY", 1)
    assert main(["new", "classification", "pets"]) == 0
    text, data = written("pets.yaml")
    assert "class_path: ImageFolderDataModule" in text
    module = ImageFolderDataModule(**data)
    assert module.classes == sorted(CLASSES) and module.image_size == (32, 32)
    assert [len(each) for each in (module.training_set(), module.validation_set())] == [20, 4]


def test_an_annotated_picture_that_is_broken_is_left_out(tmp_path, capsys):
    folder = make_boxes(tmp_path / "kitchen")
    (folder / "photos/4.jpg").write_bytes(b"no picture")
    assert "'photos/4.jpg'" in refusal(capsys, "detection", "kitchen")
    assert main(["new", "detection", "kitchen", "--skip-broken"]) == 0
    said = capsys.readouterr().out
    assert "8 images to train on and 1 for validation: every fifth image" in said
    assert "no box of 'knife'" in said
    assert next(line.split()[-3:] for line in said.splitlines() if "spoon" in line) == ["spoon", "2", "0"]
    _, data = written("kitchen.yaml")
    assert data["left_out"] == ["4.jpg"] and data["train_annotations"] == data["val_annotations"] == "coco.json"
    assert data["train_folder"] == "photos" and data["resolution"] == [96, 64]


def test_a_broken_label_map_is_left_out_with_its_picture(tmp_path, capsys):
    folder = make_maps(tmp_path / "roads")
    (folder / "masks/4_mask.png").write_bytes(b"no picture")
    assert "'masks/4_mask.png'" in refusal(capsys, "segmentation", "roads")
    (folder / "classes.txt").write_text("near\nmiddle\nfar\n")
    assert main(["new", "segmentation", "roads", "--skip-broken"]) == 0
    said = capsys.readouterr().out
    assert "8 pictures to train on and 1 for validation" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}
    each = 9 * 60
    assert rows["near"] == [f"{each * 60:,}", "62"] and rows["middle"] == ["0", "0"]
    assert f"{9 * 4 * 96:,} pixels are 255" in said
    _, data = written("roads.yaml")
    assert data["left_out"] == ["masks/4_mask.png"] and data["label_suffix"] == "_mask.png"
    assert data["classes"] == ["near", "middle", "far"]


@pytest.mark.parametrize(
    ("sub", "label", "folders"),
    [
        ("images/{s}", "labels/{s}/{{}}.png", ("images/train", "labels/train", "images/val", "labels/val")),
        ("{s}", "{s}annot/{{}}.png", ("train", "trainannot", "val", "valannot")),
        ("{s}/images", "{s}/masks/{{}}.png", ("train/images", "train/masks", "val/images", "val/masks")),
        ("photos/{s}", "SegmentationClass/{s}_{{}}.png", None),
    ],
)
def test_folders_of_label_maps_are_told_by_their_names(sub, label, folders, tmp_path, capsys):
    for split in ("train", "val"):
        make_maps(tmp_path / "in", 4, sub.format(s=split), label.format(s=split))
    if folders is None:
        assert "no label map" in refusal(capsys, "segmentation", "in")
        return
    assert main(["new", "segmentation", "in"]) == 0
    _, data = written("in.yaml")
    keys = ("train_folder", "train_label_folder", "val_folder", "val_label_folder")
    assert tuple(data[key] for key in keys) == folders


def test_annotations_are_found_beside_their_images(tmp_path, capsys):
    make_boxes(tmp_path / "in/train", name="_annotations.coco.json")
    make_boxes(tmp_path / "in/valid", 3, name="_annotations.coco.json")
    assert main(["new", "detection", "in"]) == 0
    _, data = written("in.yaml")
    assert (data["train_annotations"], data["train_folder"]) == ("train/_annotations.coco.json", "train/photos")
    assert (data["val_annotations"], data["val_folder"]) == ("valid/_annotations.coco.json", "valid/photos")
    capsys.readouterr()
    make_boxes(tmp_path / "in/train", name="more.json")
    assert "2 files of annotations for one split" in refusal(capsys, "detection", "in", "--out", "other.yaml")


def test_what_is_no_data_is_refused_in_one_line(tmp_path, capsys):
    for kind in MAKE:
        assert "no folder 'nowhere'" in refusal(capsys, kind, "nowhere")
    (tmp_path / "empty").mkdir()
    assert "0 sub-folders" in refusal(capsys, "classification", "empty")
    assert "no annotations in COCO's format" in refusal(capsys, "detection", "empty")
    assert "no folder of pictures" in refusal(capsys, "segmentation", "empty")
    make_classes(tmp_path / "pets")
    (tmp_path / "pets/fox").mkdir()
    assert "fox has no images" in refusal(capsys, "classification", "pets")
    assert "no folder of label maps" in refusal(capsys, "segmentation", "pets")
    (tmp_path / "pets/half.json").write_text('{"images": [')
    assert "half.json" in refusal(capsys, "detection", "pets")
    (tmp_path / "pets/fox").rmdir()
    (tmp_path / "pets.yaml").write_text("")
    assert "'pets.yaml' is there already" in refusal(capsys, "classification", "pets")
    assert "invalid choice: 'depth'" in refusal(capsys, "depth", "pets")


def test_odd_names_stay_what_they_are(tmp_path, capsys):
    make_classes(tmp_path / "a: b # c", {"yes": 6, "two\nlines": 6, "ü": 6})
    assert main(["new", "classification", "a: b # c"]) == 0
    assert "two?lines" in capsys.readouterr().out
    data = written("a_b_c.yaml")[1]
    assert data["root"] == "a: b # c"
    assert SmallPicturesDataModule(**data).classes == ["two\nlines", "yes", "ü"]
