"""``segexp phantom``: synthetic data in a data set's real layout."""

SUMMARY = "write synthetic data in a data set's real layout"
HELP = """\
usage: segexp phantom data=NAME [scale=demo] [output=FOLDER] [KEY=VALUE ...]

Writes synthetic data with the folders, file names and label values of a data set, and a few broken cases for the
completeness check. The same line again finds everything there; an interrupted one goes on.

  segexp phantom data=ukbiobank scale=demo
  segexp phantom data=ukbiobank scale=smoke output=heads data.layout=flat
  segexp phantom data=ukbiobank scale=demo output=real_heads anatomy=FOLDER
  segexp phantom data=wmh scale=demo phantom.layout=2022
  segexp phantom data=cain scale=demo
  segexp phantom data=kidney_cta scale=demo

data sets:
  ukbiobank    T1 heads with the label maps of five tools, each with its habits; some heads are rotated, some tools fail
               on them; the truth lies beside the tree, in truth/
  wmh          FLAIR brains of the WMH challenge's three scanners, with lesions, in either release's layout
  cain         FLAIR brains of another study, for evaluation
  kidney_cta   CT angiography of kidneys with tumours, in the native or a KiTS layout

keys:
  scale=smoke|demo|paper   how many and how large; conf/phantom/<data>/<scale>.yaml says it
  output=FOLDER            default: outputs/phantoms/<data>_<scale>, where that scale's experiments look
  anatomy=FOLDER           ukbiobank: heads from real label maps (FreeSurfer numbering) instead of ellipsoids
  phantom.KEY=VALUE        everything else, as in those files
"""


def run(arguments: list[str]) -> None:
    """Write the tree and say what to type next."""
    from segexp.config import compose, instantiate
    from segexp.config.flags import split_flags
    from segexp.console import say

    flags = split_flags(arguments)
    config = compose("phantom", list(flags.overrides), flags.config_dirs)
    root = instantiate(config.phantom, allow=flags.allow)
    words = [f"data={chosen_data(flags.overrides)}", f"data.root={root}"]
    if (root.parent / "derived").is_dir():
        words.append(f"data.derived_root={root.parent / 'derived'}")
    words += [word for word in flags.overrides if word.startswith("data.layout=")]
    truth = f", their truth in {root.parent / 'truth'}" if (root.parent / "truth").is_dir() else ""
    say(f"synthetic cases in {root}{truth}\nnext: segexp check {' '.join(words)}")


def chosen_data(overrides: list[str]) -> str:
    """Return the data set that the words choose, the last of them, or the usual one."""
    named = [word.partition("=")[2] for word in overrides if word.startswith("data=")]
    return named[-1] if named else "ukbiobank"
