"""Write scikit-learn's handwritten digits (Alpaydin & Kaynak, UCI 1998) as pictures, and a small untrained ViT.

    python -m examples.digits_data        # writes examples/data/digits/

Pretrained image models come from a hub; this example needs none: it learns from nothing.
"""

from __future__ import annotations

import csv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "data" / "digits"


def write(folder: Path = FOLDER) -> Path:
    """`digits.csv` with `image, label`, a PNG of 8 x 8 pixels for each row, and the model in `vit/`; the CSV's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _pictures(folder)
    untrained_vit(folder / "vit", side=32, width=64, layers=4, heads=4)
    return folder / "digits.csv"


def _pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    with (folder / "digits.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        for at, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(folder / "images" / f"{at}.png")
            writer.writerow([f"images/{at}.png", label])


def untrained_vit(folder: Path, *, side: int, width: int, layers: int, heads: int) -> Path:
    """A ViT over patches of 4 x 4 of pictures scaled to `side` x `side`; the same weights every time."""
    import torch
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    half = [0.5, 0.5, 0.5]
    processor = ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=half, image_std=half)
    processor.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=side,
        patch_size=4,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(write())
