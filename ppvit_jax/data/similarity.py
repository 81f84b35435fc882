"""Measures of how alike two images are."""

import numpy as np

# Side of the window in pixels, and the constants K1 and K2 for values up to 255.
_WINDOW = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def structural_similarity(image: np.ndarray, other: np.ndarray) -> float:
    """Returns the structural similarity of two images, 1 for equal ones (Wang et al. 2004).

    The mean over channels and 7x7 windows that lie within the image, with the sample covariance:
    SSIM = (2 m n + C1) (2 cov + C2) / ((m^2 + n^2 + C1) (var_m + var_n + C2)). These are the values of
    `skimage.metrics.structural_similarity(..., channel_axis=2)`.

    Args:
      image, other: uint8 [height, width, 3], both sides at least 7.
    """
    from scipy.ndimage import uniform_filter

    def window_means(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=_WINDOW, axes=(0, 1))

    x, y = image.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = window_means(x), window_means(y)
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    variance_x = sample * (window_means(x * x) - mean_x * mean_x)
    variance_y = sample * (window_means(y * y) - mean_y * mean_y)
    covariance = sample * (window_means(x * y) - mean_x * mean_y)
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    edge = _WINDOW // 2
    return float(similarity[edge:-edge, edge:-edge].mean())


def peak_signal_noise_ratio(image: np.ndarray, other: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two uint8 images of one shape in dB; infinite for equal images.

    PSNR = 10 log10(255^2 / mean squared error).
    """
    error = np.square(image.astype(np.float64) - other).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
