"""An ordinary PyTorch training script. It knows nothing of object storage: files in, a checkpoint out.

usage: train.py DATA CHECKPOINTS EPOCHS

DATA holds DIGIT/NAME.png. After each epoch CHECKPOINTS/last.pt is replaced and one JSON line is printed.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split


class Digits(Dataset):
    def __init__(self, directory: Path) -> None:
        self.files = sorted(directory.glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file = self.files[index]
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)
        return pixels.flatten(), int(file.parent.name)


def save(state: dict, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def main() -> None:
    data, checkpoints, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(1)
    digits = Digits(data)
    held_out = len(digits) // 5
    train, test = random_split(digits, [len(digits) - held_out, held_out], torch.Generator().manual_seed(2))
    batches = DataLoader(train, batch_size=16, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(1, epochs + 1):
        model.train()
        for pixels, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(
                int((model(pixels).argmax(1) == labels).sum())
                for pixels, labels in DataLoader(test, batch_size=64, num_workers=2)
            )
        save(
            {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoints / "last.pt"
        )
        print(json.dumps({"epoch": epoch, "files": len(digits), "accuracy": right / held_out}), flush=True)


if __name__ == "__main__":
    main()
