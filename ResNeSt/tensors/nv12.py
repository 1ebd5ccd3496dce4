"""NV12 (YUV420SP), which an Ascend card's JPEG decoder gives: 1.5 bytes a pixel instead of RGB's three.

A plane of Y, height x width, then half as many rows of U and V in turn, one pair for two by two pixels. Values are
those of JPEG: BT.601, full range.
"""

from __future__ import annotations

import numpy as np

# Of R, G and B, in levels; U and V are shifted by 128 (JFIF 1.02).
TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float32
)
# RGB = (TO_RGB (YUV - BIAS)) >> 8, within 0 and 255: CANN, "CSC Configuration", YUV420SP_U8 to RGB, JPEG.
TO_RGB = ((256, 0, 359), (256, -88, -183), (256, 454, 0))
BIAS = (0, 128, 128)
FRACTION = 256


def from_rgb(pixels: np.ndarray, out: np.ndarray) -> None:
    """uint8 (H, W, 3), both sides even -> uint8 (3 H / 2, W) in `out`; U and V are means of two by two pixels."""
    height, width = pixels.shape[:2]
    levels = pixels.astype(np.float32)
    out[:height] = np.rint(levels @ TO_YUV[0])
    rows = levels[::2] + levels[1::2]
    chroma = (rows[:, ::2] + rows[:, 1::2]) / 4 @ TO_YUV[1:].T + 128
    out[height:] = np.rint(np.minimum(chroma, 255)).reshape(-1, width)


def to_rgb(nv12: np.ndarray) -> np.ndarray:
    """uint8 (N, 3 H / 2, W) -> uint8 (N, H, W, 3), as the chip's pre-processing computes it; U and V are repeated."""
    images, rows, width = nv12.shape
    height = rows * 2 // 3
    chroma = nv12[:, height:].reshape(images, height // 2, width // 2, 2).repeat(2, axis=1).repeat(2, axis=2)
    yuv = np.concatenate([nv12[:, :height, :, None], chroma], axis=3).astype(np.int32)
    rgb = (yuv - BIAS) @ np.array(TO_RGB).T // FRACTION
    return np.asarray(np.clip(rgb, 0, 255).astype(np.uint8))
