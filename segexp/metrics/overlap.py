"""Overlap of two label maps, all classes at once, from one joint histogram."""

import numpy as np

# 256 K voxels: their 16-bit codes and the copy that bincount makes of them stay in the second-level cache.
CHUNK = 1 << 18


def joint_histogram(prediction: np.ndarray, reference: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the voxels of every pair (class in the reference, class in the prediction).

    The volumes are read once, in chunks, as 16-bit codes ``reference * K + prediction``, so that the memory
    needed does not grow with the volume nor (but for the K x K result) with the number of classes.

    Args:
        prediction: class indices 0..K-1, any shape and integer type.
        reference: same shape.
        num_classes: K.

    Returns:
        int64 [K, K]: rows are the reference's classes, columns the prediction's. Sums to the number of
        voxels.

    Raises:
        ValueError: for other shapes or types, or a value outside 0..K-1.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "iub":
            raise ValueError(f"the {name} holds {labels.dtype}, expected integer class indices")
        low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
        if low < 0 or high >= num_classes:
            raise ValueError(f"the {name} holds values from {low} to {high}, expected 0 to {num_classes - 1}")
    code_type = np.uint16 if num_classes <= 256 else np.int64
    codes = np.empty(min(CHUNK, reference.size), code_type)
    counts = np.zeros(num_classes * num_classes, np.int64)
    prediction, reference = prediction.reshape(-1), reference.reshape(-1)
    for start in range(0, reference.size, CHUNK):
        rows, columns = reference[start : start + CHUNK], prediction[start : start + CHUNK]
        chunk = codes[: rows.size]
        # The values were checked above, so that "unsafe" cannot wrap around.
        np.multiply(rows, code_type(num_classes), out=chunk, dtype=code_type, casting="unsafe")
        np.add(chunk, columns, out=chunk, dtype=code_type, casting="unsafe")
        counts += np.bincount(chunk, minlength=counts.size)
    return counts.reshape(num_classes, num_classes)


def dice_from_histogram(histogram: np.ndarray) -> np.ndarray:
    """Return the Dice coefficient 2|A∩B| / (|A| + |B|) of every class of a joint histogram.

    Args:
        histogram: counts [K, K] as `joint_histogram` returns them.

    Returns:
        float64 [K] in 0..1. A class absent in one of the two maps has 0; absent in both it is undefined:
        NaN (Rajchl et al. 2018, released evaluation notebook).
    """
    both = np.diagonal(histogram).astype(np.float64)
    total = histogram.sum(0) + histogram.sum(1)
    return np.divide(2.0 * both, total, out=np.full(both.shape, np.nan), where=total > 0)


def dice(prediction: np.ndarray, reference: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the Dice coefficient of every class, float64 [K], NaN where a class is absent in both maps.

    Arguments and errors as in `joint_histogram`, the rules as in `dice_from_histogram`. Class 0
    (background) is computed too; the paper leaves it out of its means, as `Scorer` does.
    """
    return dice_from_histogram(joint_histogram(prediction, reference, num_classes))
