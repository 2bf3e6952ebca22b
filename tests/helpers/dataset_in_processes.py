"""Read a Dataset in processes, with few file descriptors."""

import resource
import sys

import numpy as np
from torch.utils.data import Dataset

from sklearn_clce import CLCEClassifier
from small_backbones import TinyBackbone

N = 600
FEW = 64  # descriptors


class OddSizes(Dataset):
    """Images of several sizes."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return np.full((20 + index % 7, 16, 3), index % 200, np.uint8)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))
    clf = CLCEClassifier(TinyBackbone(), num_workers=4, batch_size=int(sys.argv[1]), image_size=16)
    clf.set_params(max_epochs=1, random_state=0).fit(OddSizes(), np.arange(N) % 2)
    print("read", len(clf.predict(OddSizes())))
