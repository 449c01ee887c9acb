"""The 4-bit and 6-bit block rules: Q4_0 for matrices, Q6_K for the embedding.

Q4_0, blocks of 32 along the input: the element of largest magnitude, m, with its sign, gives
d = m / -8 in float32; code = clamp(trunc(x / d + 8.5), 0, 15) with that unrounded d; the
value is f16(d) * (code - 8).
"""
import numpy as np
import torch


def q4_0(weight):
    """(scales as stored, codes) of a float32 array [rows, cols]; the file's exact rule."""
    x = np.ascontiguousarray(weight, np.float32).reshape(-1, 32)
    at = np.abs(x).argmax(1)                                    # the first of equals, as the reference
    d = x[np.arange(len(x)), at] / np.float32(-8)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    codes = np.clip((x * inverse[:, None] + np.float32(8.5)).astype(np.int32), 0, 15)
    return d.astype(np.float16), codes


def q4_0_values(weight):
    scales, codes = q4_0(weight)
    return (scales.astype(np.float32)[:, None] * (codes - 8).astype(np.float32)).reshape(weight.shape)


def image(weight):
    """The same on tensors."""
    x = weight.detach().view(-1, 32)
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    d = torch.where(high >= -low, high, low) / -8
    inverse = torch.where(d == 0, 0.0, 1 / d)
    codes = (x * inverse + 8.5).trunc().clamp(0, 15)
    return (d.half().float() * (codes - 8)).view_as(weight)


def straight_through(weight):
    """The image in value; the gradient passes as if nothing had been rounded."""
    return weight + (image(weight) - weight).detach()


def q6_k_values(weight):
    """What Q6_K makes of a float32 array with rows of 256 n: per 16 values the best of 19 scales by
    squared error weighted with x^2, the scales themselves in 8 bits of one f16 scale a row block."""
    x = np.ascontiguousarray(weight, np.float32).reshape(-1, 16, 16)
    top = np.take_along_axis(x, np.abs(x).argmax(2)[..., None], 2)[..., 0]
    w, best, scale = x * x, np.full(top.shape, -1, np.float32), np.zeros_like(top)
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = np.divide(np.float32(-(32 + 0.1 * step)), top, out=np.zeros_like(top), where=top != 0)
        l = np.clip(np.rint(x * inverse[..., None]), -32, 31)
        xl, ll = (w * x * l).sum(2), (w * l * l).sum(2)
        gain = np.divide(xl * xl, ll, out=np.zeros_like(ll), where=ll > 0)
        better = gain > best
        best = np.where(better, gain, best)
        scale = np.where(better, np.divide(xl, ll, out=np.zeros_like(ll), where=ll > 0), scale)
    peak = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)
    d = (peak / np.float32(-128)).astype(np.float16).astype(np.float32)
    inverse = np.divide(np.float32(-128), peak, out=np.zeros_like(peak), where=peak != 0)
    step = d * np.clip(np.rint(inverse * scale), -128, 127)
    codes = np.clip(np.rint(np.divide(x, step[..., None], out=np.zeros_like(x), where=step[..., None] != 0)), -32, 31)
    return (step[..., None] * codes).reshape(weight.shape)


def deployed(tensors):
    """State dict as the Q4_0 file holds it: matrices by q4_0, embedding by q6_k, vectors unchanged."""
    out = {}
    for name, tensor in tensors.items():
        values = tensor.detach().float().cpu()
        if "proj" in name:
            values = torch.from_numpy(q4_0_values(values.numpy()))
        elif "embed" in name:
            values = torch.from_numpy(q6_k_values(values.numpy()))
        out[name] = values
    return out


def on_lattice(tensors):
    """State dict for publishing: matrices replaced by their Q4_0 images. Stored as bf16, each block still
    has its extremum on code 0, so the reference rule finds every code again (asserted)."""
    out = {}
    for name, tensor in tensors.items():
        values = tensor.detach().float().cpu()
        if "proj" in name:
            scales, codes = q4_0(values.numpy())
            image = torch.from_numpy(q4_0_values(values.numpy())).to(torch.bfloat16)
            again_scales, again = q4_0(image.float().numpy())
            # A block of zeros has no codes to speak of; every other must come back.
            assert (again == codes)[scales != 0].all(), name
            values = image.float()
        out[name] = values
    return out
