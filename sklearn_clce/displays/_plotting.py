"""What the displays share: colours, labels that do not overlap, pictures of fitting size.

matplotlib is imported when something is drawn, never before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..data import Images, as_images

# Okabe and Ito's colours without the two that are faint on white or taken by text. Colours and
# markers take turns at different lengths, so that neighbours never share both.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT_SIZES = (9, 8, 7, 6, 5)  # of labels, in points: the first at which all of them fit
LONGEST_LABEL = 24  # characters of a label among many
CLEARANCE = (0.06, 2)  # around labels: share of the width, as type is hinted; pixels
ELLIPSIS = "…"
# of a gallery
PICTURE_SIDE = 224  # pixels
PICTURE_WIDTH = 2.1  # inches of a panel
CAPTION_LENGTH = 26  # characters that fit above a picture
THUMBNAIL_SIDES = (20, 16, 13, 10)  # longer side in points: the first at which all of them fit
THUMBNAIL_FRAME = 8  # points
THIN_LINE = {"linewidth": 0.6, "color": "0.4"}  # from a label or a picture to its point


def new_axes(ax: Any, figsize: tuple[float, float]) -> Any:
    """Return axes to draw on."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "displays draw with matplotlib, which is not installed: "
            "python -m pip install matplotlib"
        ) from error
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def panels(ax: Any, n_rows: int, n_columns: int, *, gap: float, sharex: bool = False) -> np.ndarray:
    """Divide axes into a grid of smaller ones."""
    ax.set_axis_off()
    grid = np.empty((n_rows, n_columns), dtype=object)
    width, height = 1 / n_columns, 1 / n_rows
    for row in range(n_rows):
        for column in range(n_columns):
            box = [column * width, 1 - (row + 1) * height, width, height * (1 - gap)]
            shared = grid[0, 0] if sharex else None
            grid[row, column] = ax.inset_axes(box, sharex=shared)
    return grid


def gallery(ax: Any, n_pictures: int, *, height: float, gap: float) -> tuple[Any, np.ndarray]:
    """Divide axes, or those of a new figure, into panels for pictures with their captions."""
    n_columns = math.ceil(math.sqrt(n_pictures))
    n_rows = math.ceil(n_pictures / n_columns)
    ax = new_axes(ax, (PICTURE_WIDTH * n_columns, height * n_rows))
    grid = panels(ax, n_rows, n_columns, gap=gap).ravel()
    for axis in grid[n_pictures:]:
        axis.set_axis_off()
    return ax, grid[:n_pictures]


def shortened(text: Any, n_characters: int) -> str:
    """Cut the middle out of a long label, because its ends tell labels apart."""
    text = " ".join(str(text).split())
    if len(text) <= n_characters:
        return text
    head = n_characters // 2
    tail = n_characters - 1 - head
    return text[:head].rstrip() + ELLIPSIS + text[len(text) - tail :].lstrip()


def class_style(number: int) -> dict[str, str]:
    """Return colour and marker of a class, which differ in more than colour."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def as_estimator_reads(estimator: Any, X: Any) -> Any:
    """Read images with the white and the channels of an estimator that has a way to read them."""
    return estimator._read(X, reset=False) if hasattr(estimator, "_read") else X


def read_images(X: Any, image_shape: Sequence[int] | None) -> Images:
    """Read images that have not been read."""
    return X if isinstance(X, Images) else as_images(X, image_shape=image_shape)


def thumbnail(image: Tensor, side: int) -> np.ndarray:
    """Turn an image into an array that matplotlib shows: image (C, H, W) -> (h, w)."""
    scale = side / max(image.shape[1:])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[1:]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    pixels = image.numpy().transpose(1, 2, 0)  # (h, w, C)
    return pixels if pixels.shape[2] == 3 else pixels.mean(axis=2)


class Boxes:
    """Rectangles on the canvas that must not overlap."""

    def __init__(self, ax: Any) -> None:
        low, high = ax.bbox.get_points()
        self.bounds = np.array([*low, *high])
        self.taken: list[np.ndarray] = []

    def take(self, centre: np.ndarray, size: np.ndarray) -> bool:
        """Take a rectangle, if it is free: centre (2,), size (2,)."""
        low, high = centre - size / 2, centre + size / 2
        if (low < self.bounds[:2]).any() or (high > self.bounds[2:]).any():
            return False
        if self.taken:
            boxes = np.array(self.taken)  # (n, 4)
            apart = (low >= boxes[:, 2:]) | (high <= boxes[:, :2])
            if not apart.any(axis=1).all():
                return False
        self.taken.append(np.array([*low, *high]))
        return True


def name_points(ax: Any, points: np.ndarray, labels: Iterable[Any]) -> tuple[list[Any], Boxes]:
    """Write a label beside each point, as near as it can be for none to overlap: points (n, 2)."""
    names = [shortened(label, LONGEST_LABEL) for label in labels]
    ax.figure.canvas.figure.draw_without_rendering()  # or the axes have still to be laid out
    anchors = ax.transData.transform(points)  # pixels
    for font_size in FONT_SIZES:
        sizes = [_text_size(ax, name, font_size) for name in names]
        boxes = Boxes(ax)
        places = [_free_place(boxes, *pair) for pair in zip(anchors, sizes, strict=True)]
        if all(place is not None for place in places):
            break
    texts = [
        _write(ax, name, point, place, font_size)
        for name, point, place in zip(names, points, places, strict=True)
        if place is not None
    ]
    return texts, boxes


def _text_size(ax: Any, text: str, font_size: float) -> np.ndarray:
    artist = ax.text(0, 0, text, size=font_size, parse_math=False)
    extent = artist.get_window_extent()
    artist.remove()
    share, pixels = CLEARANCE
    return np.array([extent.width * (1 + share) + pixels, extent.height + pixels])


def _free_place(boxes: Boxes, anchor: np.ndarray, size: np.ndarray) -> np.ndarray | None:
    """Find the nearest free place on rings around a point; returns the way to it in pixels."""
    reach = np.hypot(*(boxes.bounds[2:] - boxes.bounds[:2])) / 2
    for radius in np.arange(size[1], reach, size[1] / 2):
        for angle in np.pi / 2 + np.linspace(0, 2 * np.pi, 16, endpoint=False):
            move = radius * np.array([np.cos(angle), np.sin(angle)])
            if boxes.take(anchor + move, size):
                return move
    return None


def _write(ax: Any, text: str, point: np.ndarray, move: np.ndarray, font_size: float) -> Any:
    """Write a label, with a line to its point where it is moved far."""
    from matplotlib.patheffects import withStroke

    points_per_pixel = 72 / ax.figure.dpi
    far = np.hypot(*move) * points_per_pixel > 2.5 * font_size
    label = ax.annotate(
        text,
        point,
        xytext=move * points_per_pixel,
        textcoords="offset points",
        ha="center",
        va="center",
        size=font_size,
        path_effects=[withStroke(linewidth=2.5, foreground=ax.get_facecolor())],
        arrowprops={"arrowstyle": "-", **THIN_LINE} if far else None,
        zorder=5,
        parse_math=False,
    )
    label.set_in_layout(False)
    return label


def show_thumbnails(
    ax: Any,
    points: np.ndarray,
    images: Sequence[Tensor],
    *,
    indices: np.ndarray,
    frames: Sequence[dict[str, Any]],
    boxes: Boxes,
) -> list[Any]:
    """Draw pictures at their points, or as near as there is room, with a line to the point.

    Shapes: points (n, 2), images (C, H, W).
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    centres = ax.transData.transform(points)
    taken = list(boxes.taken)
    for side in THUMBNAIL_SIDES:
        boxes.taken = list(taken)
        size = np.full(2, (side + THUMBNAIL_FRAME) * ax.figure.dpi / 72)
        places = [_nearest_place(boxes, centres[index], size) for index in indices]
        if all(place is not None for place in places):
            break
    drawn = []
    for index, place in zip(indices, places, strict=True):
        if place is None:
            continue
        pixels = thumbnail(images[int(index)], 4 * side)
        picture = OffsetImage(
            pixels, zoom=side / max(pixels.shape[:2]), cmap="gray", norm=_unit_norm()
        )
        box = AnnotationBbox(
            picture,
            points[index],
            xybox=place * 72 / ax.figure.dpi,
            boxcoords="offset points",
            pad=0.15,
            bboxprops=frames[index],
            arrowprops={"arrowstyle": "-", **THIN_LINE} if place.any() else None,
        )
        box.set(zorder=4, in_layout=False)
        drawn.append(ax.add_artist(box))
    return drawn


def _nearest_place(boxes: Boxes, centre: np.ndarray, size: np.ndarray) -> np.ndarray | None:
    """Take a point itself if it is free, else the nearest place; returns the way to it."""
    return np.zeros(2) if boxes.take(centre, size) else _free_place(boxes, centre, size)


def _unit_norm() -> Any:
    from matplotlib.colors import Normalize

    return Normalize(0, 1)
