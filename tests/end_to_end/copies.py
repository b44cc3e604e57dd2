"""Small copies of the real data sets in the layouts in which they are published.

A class is a colour, so that a network can learn something. Pictures have odd sides where a set has
them, one is gray and one of four inks, and files lie about that belong to no set.
"""

from __future__ import annotations

import colorsys
import gzip
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WNIDS = ("n03", "n01", "n04", "n02")
MEDICAL = {
    "pathmnist": (9, True),
    "dermamnist": (7, True),
    "octmnist": (4, False),
    "pneumoniamnist": (2, False),
    "breastmnist": (2, False),
    "bloodmnist": (8, True),
    "tissuemnist": (8, False),
}
"""Classes of each set, and whether it has colours."""


def pixels(label: int, number: int, sides: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) in the colour of its class, with some noise."""
    rng = np.random.default_rng([label, number])
    colour = np.array(colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 0.8)) * 255
    noise = rng.normal(0, 20, (sides[1], sides[0], 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def picture(path: Path, label: int, number: int, sides: tuple[int, int] | None = None) -> None:
    """Write a JPEG, or what the ending of its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    odd = ((40, 31), (23, 57), (12, 9), (300, 260))[number % 4]
    mode = {5: "L", 6: "CMYK"}.get(number, "RGB") if sides is None else "RGB"
    Image.fromarray(pixels(label, number, sides or odd)).convert(mode).save(path)


def folders(root: Path, counts: dict[str, int], *, first: int = 0) -> None:
    """Pictures of all classes in the folders of each part, and a file that is none."""
    for part, count in counts.items():
        for label, wnid in enumerate(WNIDS):
            for number in range(count):
                picture(root / part / wnid / f"{wnid}_{number}.JPEG", label, first + number)
            (root / part / wnid / "readme.txt").write_text("no picture")


def cifar10(root: Path) -> dict[str, Any]:
    folder = root / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        _pickle(folder / name, 10, 2, "labels")
    _write(folder / "batches.meta", {"label_names": [f"class {n}" for n in range(10)]})
    (folder / "readme.html").write_text("nothing")
    return {}


def cifar100(root: Path) -> dict[str, Any]:
    folder = root / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    _pickle(folder / "train", 100, 3, "fine_labels")
    _pickle(folder / "test", 100, 1, "fine_labels")
    _write(folder / "meta", {"fine_label_names": [f"class {n}" for n in range(100)]})
    return {}


def _pickle(path: Path, classes: int, count: int, labels: str) -> None:
    y = list(range(classes)) * count
    images = [pixels(label, number, (32, 32)) for number, label in enumerate(y)]
    data = np.stack(images).transpose(0, 3, 1, 2).reshape(len(y), -1)
    _write(path, {"data": data, labels: y})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(pickle.dumps({key.encode(): value for key, value in content.items()}, 2))


def fashion_mnist(root: Path) -> dict[str, Any]:
    folder = root / "fashion_mnist"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 4), ("t10k", 2)):
        y = bytes(list(range(10)) * count)
        x = b"".join(pixels(label, n, (28, 28))[..., 0].tobytes() for n, label in enumerate(y))
        images, labels = (f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        (folder / images).write_bytes(gzip.compress(struct.pack(">IIII", 2051, len(y), 28, 28) + x))
        (folder / labels).write_bytes(gzip.compress(struct.pack(">II", 2049, len(y)) + y))
    return {}


def tiny_imagenet(root: Path) -> dict[str, Any]:
    folder = root / "tiny-imagenet-200"
    wnids = [f"n0000000{label}" for label in range(4)]
    lines = []
    for label, wnid in enumerate(wnids):
        for number in range(4):
            path = folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
            picture(path, label, number, (64, 64))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("0 0 62 62")
        picture(folder / "val" / "images" / f"val_{label}.JPEG", label, 9, (64, 64))
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    return {"classes": 4}


def tiny_imagenet_shards(root: Path) -> dict[str, Any]:
    folder = root / "tiny_imagenet" / "processed"
    folder.mkdir(parents=True)
    for part in ("train", "val"):
        for number in range(1, 21):
            y = np.arange(4)
            x = np.stack([pixels(label, number, (64, 64)) for label in y.tolist()])
            np.save(folder / f"x_{part}_{number:02}.npy", x / 255)
            np.save(folder / f"y_{part}_{number:02}.npy", y)
    return {"classes": 4}


def clear100(root: Path) -> dict[str, Any]:
    names = ("camera", "bus", "laptop")
    for part, count in (("train", 3), ("test", 2)):
        folder = root / "clear" / part
        lists: dict[str, dict[str, str]] = {}
        for bucket in ("1", "2"):
            for label, name in enumerate(names):
                images = {}
                for number in range(count):
                    path = f"labeled_images/{bucket}/{name}/{number}.jpg"
                    picture(folder / path, label, number)
                    images[str(number)] = {"IMG_PATH": path}
                listed = f"labeled_metadata/{bucket}/{name}.json"
                (folder / listed).parent.mkdir(parents=True, exist_ok=True)
                (folder / listed).write_text(json.dumps(images))
                lists.setdefault(bucket, {})[name] = listed
        (folder / "labeled_metadata.json").write_text(json.dumps(lists))
        (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    return {"classes": 3, "buckets": 2, "size": 16}


def imagenet100(root: Path) -> dict[str, Any]:
    folders(root / "imagenet", {"train": 8, "val": 3})
    return {"class_list": list(WNIDS), "size": 16, "resize": "center_crop"}


def imagenet_lt(root: Path) -> dict[str, Any]:
    imagenet100(root)
    labels = {wnid: label for label, wnid in enumerate(sorted(WNIDS))}
    for part, split in (("train", "train"), ("test", "val")):
        lines = [
            f"{split}/{wnid}/{wnid}_{number}.JPEG {labels[wnid]}"
            for place, wnid in enumerate(WNIDS)
            for number in range(8 - 2 * place if part == "train" else 3)
        ]
        (root / "imagenet" / f"ImageNet_LT_{part}.txt").write_text("\n".join(lines) + "\n")
    return {"class_list": list(WNIDS), "size": 16}


def imagenet_c(root: Path) -> dict[str, Any]:
    for place in ("fog/1", "fog/2", "noise/shot_noise/1", "noise/shot_noise/2"):
        folders(root / "imagenet-c", {place: 3}, first=10)
    chosen = {"corruptions": ["shot_noise", "fog"], "severities": [1, 2]}
    return {**chosen, "class_list": list(WNIDS), "size": 16}


def imagenet_o(root: Path) -> dict[str, Any]:
    folders(root, {"imagenet-o": 3}, first=20)
    return {"classes": 4, "size": 16}


def core50(root: Path) -> dict[str, Any]:
    folder = root / "core50" / "core50_128x128"
    for session in range(1, 12):
        for instance in range(1, 51):
            name = f"C_{session:02}_{instance:02}_000.png"
            path = folder / f"s{session}" / f"o{instance}" / name
            path.parent.mkdir(parents=True)
            colour = tuple(pixels(instance, session, (1, 1))[0, 0].tolist())
            Image.new("RGB", (128, 128), colour).save(path)
    return {"size": 16}


def core50_array(root: Path) -> dict[str, Any]:
    folder = root / "core50"
    folder.mkdir(parents=True)
    frames = [(session, instance) for session in range(1, 12) for instance in range(1, 51)]
    paths = [f"s{s}/o{o}/C_{s:02}_{o:02}_000.png" for s, o in frames]
    images = np.stack([pixels(o, s, (1, 1)) for s, o in frames]).repeat(128, 1).repeat(128, 2)
    np.savez(folder / "core50_imgs.npz", x=images)
    (folder / "paths.pkl").write_bytes(pickle.dumps(paths, 2))
    return {"size": 16}


def medmnist40(root: Path) -> dict[str, Any]:
    folder = root / "medmnist"
    folder.mkdir(parents=True)
    for flag, (classes, colours) in MEDICAL.items():
        arrays = {}
        for part, count in (("train", 4), ("val", 1), ("test", 2)):
            y = np.repeat(np.arange(classes), count)
            x = np.stack([pixels(label, n, (28, 28)) for n, label in enumerate(y.tolist())])
            arrays[f"{part}_images"] = x if colours else x[..., 0]
            arrays[f"{part}_labels"] = y[:, None].astype(np.uint8)
        np.savez_compressed(folder / f"{flag}.npz", **arrays)
    return {"size": 28}
