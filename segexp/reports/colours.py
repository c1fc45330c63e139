"""Colours of structures and runs, the same in every picture."""

import colorsys

# Okabe and Ito's palette, told apart also by colour-blind readers; black and grey are left to the image
# itself.
DISTINCT = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
# Rajchl et al. 2018, figure 5: single red, all green, tissue blue; then as above.
SERIES = ("#c8503c", "#3f9b4f", "#3f6fb5", "#e69f00", "#cc79a7", "#56b4e9", "#7f7f7f")
GOLDEN = 0.61803398875


def structure_colours(num_classes: int) -> list[tuple[float, float, float]]:
    """Return one RGB colour (0..1) per class; class 0, the background, is black.

    The first seven structures have the distinct colours; from the eighth on neighbouring classes are a
    golden angle of hue apart, in three strengths, which keeps 138 of them apart as well as 138 can be.
    """
    colours = [(0.0, 0.0, 0.0)]
    for index in range(num_classes - 1):
        if num_classes - 1 <= len(DISTINCT):
            text = DISTINCT[index]
            colours.append(tuple(int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)))
        else:
            strength = (1.0, 0.72, 0.88)[index % 3]
            colours.append(colorsys.hsv_to_rgb(index * GOLDEN % 1, (0.85, 0.65, 0.45)[index // 3 % 3], strength))
    return colours


def series_colour(index: int) -> str:
    """Return the colour of the ``index``-th run of a figure."""
    return SERIES[index % len(SERIES)]
