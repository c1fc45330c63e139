"""From a network and a volume to label maps, without ever holding all logits."""

from segexp.inference.components import LargestComponent
from segexp.inference.mean_field import DenseMeanField, LocalMeanField
from segexp.inference.slabs import SlabLogits
from segexp.inference.slice_by_slice import SliceBySlice
from segexp.inference.sliding_window import SlidingWindow
from segexp.inference.voted_windows import VotedWindows
from segexp.inference.whole_volume import WholeVolume

__all__ = ["DenseMeanField", "LargestComponent", "LocalMeanField", "SlabLogits", "SliceBySlice", "SlidingWindow",
           "VotedWindows", "WholeVolume"]
