"""From a network and a volume to label maps, without ever holding all logits."""

from segexp.inference.slabs import SlabLogits
from segexp.inference.sliding_window import SlidingWindow
from segexp.inference.whole_volume import WholeVolume

__all__ = ["SlabLogits", "SlidingWindow", "WholeVolume"]
