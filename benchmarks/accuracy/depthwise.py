"""Depthwise convolutions on small maps, trained faster on processors without AVX-512.

There oneDNN takes nearly half of a training step of EfficientNet-Lite0 at 64 pixels for the
gradient of their weights. A sum over images and positions for each place of the kernel is the same
gradient.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F

LARGEST = 8  # side of the maps; on larger ones oneDNN is as fast
NATIVE = torch.nn.Conv2d._conv_forward


@contextmanager
def fast_depthwise():
    """Compute the weight gradients of depthwise convolutions by shifts, where that is faster.

    Yields
    ------
    None
        What is computed within differs in rounding alone.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        yield
        return
    torch.nn.Conv2d._conv_forward = _conv_forward
    try:
        yield
    finally:
        torch.nn.Conv2d._conv_forward = NATIVE


def _conv_forward(layer, x, weight, bias):
    small_and_depthwise = (
        x.device.type == "cpu"
        and max(x.shape[-2:]) <= LARGEST
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and bias is None
    )
    if small_and_depthwise:
        return DepthwiseConvolution.apply(x, weight, layer.stride, layer.padding)
    return NATIVE(layer, x, weight, bias)


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is a sum for each place of the kernel."""

    @staticmethod
    def forward(ctx, x, weight, stride, padding):
        """Convolve.

        Parameters
        ----------
        ctx : object
            Keeps what the backward pass needs.
        x : Tensor of shape (n, channels, H, W)
            Maps.
        weight : Tensor of shape (channels, 1, kernel height, kernel width)
            One kernel for each channel.
        stride, padding : tuple of (int, int)
            Vertical and horizontal.

        Returns
        -------
        Tensor of shape (n, channels, H', W')
            Maps.
        """
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of maps and weights."""
        x, weight = ctx.saved_tensors
        channels, _, *kernel = weight.shape
        of_maps = torch.nn.grad.conv2d_input(
            x.shape, weight, gradient, ctx.stride, ctx.padding, groups=channels
        )
        (top, left), (down, right) = ctx.padding, ctx.stride
        maps = F.pad(x, [left, left, top, top]).permute(0, 2, 3, 1)
        gradient = gradient.permute(0, 2, 3, 1)  # (n, H', W', channels), as are slices of maps
        height, width = gradient.shape[1] * down, gradient.shape[2] * right
        of_places = [
            (maps[:, i : i + height : down, j : j + width : right] * gradient).sum((0, 1, 2))
            for i in range(kernel[0])
            for j in range(kernel[1])
        ]
        of_weight = torch.stack(of_places, dim=1).reshape(weight.shape)
        return of_maps, of_weight, None, None
