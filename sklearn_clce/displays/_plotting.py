"""What the displays share: colours, labels that do not overlap, images of fitting size.

matplotlib is imported when something is drawn, never before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from ..data import Images, as_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito's colours without the two that are faint on white or taken by text. Colours and
# markers take turns at different lengths, so that neighbours never share both.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT_SIZES = (9, 8, 7, 6, 5)  # of labels, in points: the first at which all of them fit
MAX_LABEL_LENGTH = 24  # characters of a label among many
CLEARANCE = (0.06, 2)  # around labels: share of the width, as type is hinted; pixels
ELLIPSIS = "…"
# of a gallery
IMAGE_SIDE = 224  # pixels
PANEL_WIDTH = 2.1  # inches
CAPTION_LENGTH = 26  # characters that fit above an image
THUMBNAIL_SIDES = (20, 16, 13, 10)  # longer side in points: the first at which all of them fit
THUMBNAIL_FRAME = 8  # points
LEADER = {"arrowstyle": "-", "linewidth": 0.6, "color": "0.4"}  # from a label or image to its point


def check_comes_first(estimator: Any) -> None:
    """Raise an error unless the first argument is a fitted estimator."""
    if not hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator is {type(estimator).__name__}: a fitted estimator comes first, "
            "from_estimator(estimator, X, y)"
        )
    check_is_fitted(estimator)


class Display:
    """What a display is: arrays, and ``_draw``, which draws them on ``ax_``."""

    ax_: Axes
    figure_: Figure | SubFigure

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw what the display holds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, or to divide into panels; None makes a figure.

        Returns
        -------
        object
            The same display.
        """
        self._draw(ax)
        self.figure_ = self.ax_.figure
        return self

    def _draw(self, ax: Axes | None) -> None:
        raise NotImplementedError


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
    """Divide axes into a grid of smaller ones: (n_rows, n_columns)."""
    ax.set_axis_off()
    grid = np.empty((n_rows, n_columns), dtype=object)
    width, height = 1 / n_columns, 1 / n_rows
    for row, column in np.ndindex(grid.shape):
        box = (column * width, 1 - (row + 1) * height, width, height * (1 - gap))
        grid[row, column] = ax.inset_axes(box, sharex=grid[0, 0] if sharex else None)
    return grid


def show_gallery(
    ax: Any, images: Iterable[np.ndarray], captions: Sequence[str], *, height: float, gap: float
) -> tuple[Any, np.ndarray]:
    """Draw images under their captions, each in a panel of the axes: (h, w) or (h, w, 3)."""
    n_columns = math.ceil(math.sqrt(len(captions)))
    n_rows = math.ceil(len(captions) / n_columns)
    ax = new_axes(ax, (PANEL_WIDTH * n_columns, height * n_rows))
    used, unused = np.split(panels(ax, n_rows, n_columns, gap=gap).ravel(), [len(captions)])
    for axis in unused:
        axis.set_axis_off()
    for axis, image, caption in zip(used, images, captions, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_title(caption, fontsize=8, parse_math=False)
    return ax, used


def shortened(text: Any, n_characters: int) -> str:
    """Cut the middle out of a long label, because its ends distinguish labels."""
    text = str(text).encode("utf-8", "replace").decode()  # no font draws the bytes of a file name
    text = " ".join(text.split())
    if len(text) <= n_characters:
        return text
    head = n_characters // 2
    tail = n_characters - 1 - head
    return text[:head].rstrip() + ELLIPSIS + text[len(text) - tail :].lstrip()


def with_percent(name: Any, share: float, *, prefix: str = "") -> str:
    """Write a line of a caption, such as "predicted: metal 97 %"."""
    return f"{prefix}{shortened(name, CAPTION_LENGTH - len(prefix))} {100 * share:.0f} %"


def class_style(number: int) -> dict[str, str]:
    """Return colour and marker of a class, which differ in more than colour."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def as_estimator_reads(estimator: Any, X: Any) -> Any:
    """Read images with the scale and the channels of an estimator that has a way to read them."""
    return estimator._read(X, reset=False) if hasattr(estimator, "_read") else X


def read_images(X: Any, image_shape: Sequence[int] | None) -> Images:
    """Read images that have not been read."""
    return X if isinstance(X, Images) else as_images(X, image_shape=image_shape)


def thumbnail(image: Tensor, side: int) -> np.ndarray:
    """Turn an image into an array that matplotlib shows: (C, H, W) -> (h, w) or (h, w, 3)."""
    scale = side / max(image.shape[1:])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[1:]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    pixels = image.numpy().transpose(1, 2, 0)  # (h, w, C)
    return pixels if pixels.shape[2] == 3 else pixels.mean(axis=2)


class FreeSpace:
    """What is free of the axes' part of the canvas, in pixels."""

    def __init__(self, ax: Any) -> None:
        self.low, self.high = ax.bbox.get_points()
        self.taken = np.empty((0, 2, 2))  # low and high corner of each rectangle

    def take(self, anchor: np.ndarray, size: np.ndarray, first_radius: float) -> Any:
        """Take the free rectangle nearest to a point, of those on rings around it.

        Returns the way from the point to its centre, or None. Shapes: anchor (2,), size (2,).
        """
        radii = np.arange(first_radius, np.hypot(*(self.high - self.low)) / 2, size[1] / 2)
        angles = np.pi / 2 + np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ways = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        centres = anchor + ways.reshape(-1, 2)
        low, high = centres - size / 2, centres + size / 2
        apart = (low[:, None] >= self.taken[:, 1]) | (high[:, None] <= self.taken[:, 0])
        inside = (low >= self.low) & (high <= self.high)
        free = np.flatnonzero(inside.all(axis=1) & apart.any(axis=2).all(axis=1))
        if not len(free):
            return None
        self.taken = np.append(self.taken, [[low[free[0]], high[free[0]]]], axis=0)
        return centres[free[0]] - anchor


def place(
    space: FreeSpace,
    anchors: np.ndarray,
    steps: Sequence[int],
    sizes_at: Callable[[int], Iterable[np.ndarray]],
    *,
    on_anchor: bool = False,
) -> tuple[int, list[Any]]:
    """Take a rectangle for each point, at the first step of their sizes that leaves none out.

    Returns this step, else the last one, and the ways from the points. Shape: anchors (n, 2).
    """
    taken = space.taken
    for step in steps:
        space.taken = taken
        ways = [
            space.take(anchor, size, first_radius=0 if on_anchor else size[1])
            for anchor, size in zip(anchors, sizes_at(step), strict=True)
        ]
        if all(way is not None for way in ways):
            break
    return step, ways


def name_points(ax: Any, points: np.ndarray, labels: Iterable[Any]) -> tuple[list[Any], FreeSpace]:
    """Write a label next to each point, as near as none overlaps another: points (n, 2)."""
    names = [shortened(label, MAX_LABEL_LENGTH) for label in labels]
    ax.figure.canvas.figure.draw_without_rendering()  # lays out the axes
    space = FreeSpace(ax)
    anchors = ax.transData.transform(points)
    font_size, ways = place(
        space, anchors, FONT_SIZES, lambda size: [_text_size(ax, name, size) for name in names]
    )
    texts = [
        _write(ax, name, point, way, font_size)
        for name, point, way in zip(names, points, ways, strict=True)
        if way is not None
    ]
    return texts, space


def _text_size(ax: Any, text: str, font_size: float) -> np.ndarray:
    artist = ax.text(0, 0, text, size=font_size, parse_math=False)
    extent = artist.get_window_extent()
    artist.remove()
    share, pixels = CLEARANCE
    return np.array([extent.width * (1 + share) + pixels, extent.height + pixels])


def _write(ax: Any, text: str, point: np.ndarray, way: np.ndarray, font_size: float) -> Any:
    """Write a label, with a line to its point where it is far: way (2,) in pixels."""
    from matplotlib.patheffects import withStroke

    way = way * 72 / ax.figure.dpi  # points
    label = ax.annotate(
        text,
        point,
        xytext=way,
        textcoords="offset points",
        ha="center",
        va="center",
        size=font_size,
        path_effects=[withStroke(linewidth=2.5, foreground=ax.get_facecolor())],
        arrowprops=LEADER if np.hypot(*way) > 2.5 * font_size else None,
        zorder=5,
        parse_math=False,
    )
    label.set_in_layout(False)
    return label


def show_thumbnails(
    ax: Any,
    points: np.ndarray,
    images: Sequence[Tensor],
    frames: Sequence[dict[str, Any]],
    space: FreeSpace,
) -> int:
    """Draw images at their points, or as near as there is room, with a line to the point.

    Returns how many there was room for. Shapes: points (n, 2), images (C, H, W).
    """
    from matplotlib.colors import Normalize
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    pixels_per_point = ax.figure.dpi / 72
    side, ways = place(
        space,
        ax.transData.transform(points),
        THUMBNAIL_SIDES,
        lambda side: np.full((len(points), 2), (side + THUMBNAIL_FRAME) * pixels_per_point),
        on_anchor=True,
    )
    drawn = [number for number, way in enumerate(ways) if way is not None]
    for number in drawn:
        pixels = thumbnail(images[number], 4 * side)
        zoom = side / max(pixels.shape[:2])
        box = AnnotationBbox(
            OffsetImage(pixels, zoom=zoom, cmap="gray", norm=Normalize(0, 1)),
            points[number],
            xybox=ways[number] / pixels_per_point,
            boxcoords="offset points",
            pad=0.15,
            bboxprops=frames[number],
            arrowprops=LEADER if ways[number].any() else None,
        )
        box.set(zorder=4, in_layout=False)
        ax.add_artist(box)
    return len(drawn)
